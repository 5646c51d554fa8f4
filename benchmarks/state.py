"""Machine facts and state: clocks, governors, power mode, temperatures. All are read without privileges."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rvos_edge.benchmarks.schema import Machine, State

RunCommand = Callable[[Sequence[str]], "str | None"]
"""Function that runs a command and returns its output, or None where it is missing or fails."""

_GPU_FIELDS = (
    "name",
    "driver_version",
    "pstate",
    "temperature.gpu",
    "clocks.sm",
    "clocks.mem",
    "power.draw",
    "power.limit",
    "clocks_throttle_reasons.active",
)
_NO_ANSWER = ("[N/A]", "N/A", "[Not Supported]")


def run_command(command: Sequence[str]) -> str | None:
    """Output of a command, run for at most ten seconds; None where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def read_machine(*, root: Path = Path("/"), run: RunCommand = run_command, uses_gpu: bool = False) -> Machine:
    """Facts of this machine, which is named after its GPU if a backend ran there (``root``: folder of proc and sys)."""
    cpu = _first(r"^(?:model name|Model)\s*:\s*(.+)$", _read(root / "proc/cpuinfo"))
    cpu = cpu or platform.processor() or platform.machine()
    total = _first(r"^MemTotal:\s*(\d+) kB$", _read(root / "proc/meminfo"))
    jetson = _read(root / "proc/device-tree/model").strip("\0 \n")
    gpu = jetson if "Jetson" in jetson else _gpu_state(run).get("name")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_cpu = f"{cpu}, {cores} core{'s' if cores > 1 else ''}"
    return Machine(
        name=jetson if "Jetson" in jetson else gpu if gpu and uses_gpu else on_cpu,
        cpu=cpu,
        cores=cores,
        memory_mib=int(total) // 1024 if total else 0,
        gpu=gpu,
        system=f"{platform.system()} {platform.machine()}",
    )


def read_state(*, root: Path = Path("/"), run: RunCommand = run_command) -> State:
    """Present state of this machine."""
    load = _read(root / "proc/loadavg").split()
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    governors = {_read(policy / "scaling_governor").strip() for policy in policies}
    mode = run(["nvpmodel", "-q"])
    return State(
        load_average=float(load[0]) if load else None,
        governors=tuple(sorted(governors - {""})),
        clocks_locked=_clocks_locked(root, policies),
        power_mode=_first(r"NV Power Mode:\s*(.+)$", mode or ""),
        temperatures_c=_temperatures(root),
        gpu=_gpu_state(run),
    )


def gpu_memory_mib(run: RunCommand = run_command) -> float | None:
    """Memory in use on the first NVIDIA GPU, by all processes, in MiB; None where nvidia-smi gives no answer."""
    answer = run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"])
    line = (answer or "").splitlines()[:1]
    return float(line[0]) if line and re.fullmatch(r"[\d.]+", line[0].strip()) else None


def _temperatures(root: Path) -> dict[str, float]:
    """Degrees Celsius by thermal zone; on a Jetson the temperatures of tegrastats."""
    found: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name, degrees = _read(zone / "type").strip(), _read(zone / "temp").strip()
        # A zone that is switched off cannot be read, or gives a negative temperature.
        if name and re.fullmatch(r"\d+", degrees):
            found[name if name not in found else f"{name} {zone.name[12:]}"] = int(degrees) / 1000
    return found


def _clocks_locked(root: Path, policies: Iterable[Path]) -> bool | None:
    """True if minimum and maximum frequency are equal, for the CPU and, on a Jetson, the GPU; None if unknown."""
    pairs = [(policy / "scaling_min_freq", policy / "scaling_max_freq") for policy in policies]
    gpus = (root / "sys/class/devfreq").glob("*")
    pairs += [
        (gpu / "min_freq", gpu / "max_freq") for gpu in gpus if re.search(r"\.(gpu|g[av]\d+b|gp\d+b|gpc)", gpu.name)
    ]
    ranges = [(_read(low).strip(), _read(high).strip()) for low, high in pairs]
    known = [(low, high) for low, high in ranges if low and high]
    return all(low == high for low, high in known) if known else None


def _gpu_state(run: RunCommand) -> dict[str, str]:
    answer = run(["nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader"])
    if not answer:
        return {}
    values = [value.strip() for value in answer.splitlines()[0].split(",")]
    return {name: value for name, value in zip(_GPU_FIELDS, values, strict=False) if value not in _NO_ANSWER}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _first(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1].strip() if match else None
