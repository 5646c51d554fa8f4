"""What machine this is and how it fares: clocks, governor, power mode, temperatures. Nothing here needs a privilege."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rvos_edge.benchmarks.schema import Machine, State

Ask = Callable[[Sequence[str]], "str | None"]
"""Runs a command and returns its output, or None where it is not there or fails."""

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


def ask(command: Sequence[str]) -> str | None:
    """Run a command for at most ten seconds; None where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def read_machine(*, root: Path = Path("/"), ask: Ask = ask, uses_gpu: bool = False) -> Machine:
    """Say what machine this is.

    Args:
        root: Where /proc and /sys are.
        ask: Runs commands.
        uses_gpu: Whether a backend ran on the GPU, which then gives the machine its name.
    """
    cpu = _first(r"^(?:model name|Model)\s*:\s*(.+)$", _read(root / "proc/cpuinfo"))
    cpu = cpu or platform.processor() or platform.machine()
    total = _first(r"^MemTotal:\s*(\d+) kB$", _read(root / "proc/meminfo"))
    jetson = _read(root / "proc/device-tree/model").strip("\0 \n")
    gpu = jetson if "Jetson" in jetson else _gpu_state(ask).get("name")
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


def read_state(*, root: Path = Path("/"), ask: Ask = ask) -> State:
    """Say how the machine fares now.

    Args:
        root: Where /proc and /sys are.
        ask: Runs commands.
    """
    load = _read(root / "proc/loadavg").split()
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    governors = {_read(policy / "scaling_governor").strip() for policy in policies}
    mode = ask(["nvpmodel", "-q"])
    return State(
        load_average=float(load[0]) if load else None,
        governors=tuple(sorted(governors - {""})),
        clocks_locked=_clocks_locked(root, policies),
        power_mode=_first(r"NV Power Mode:\s*(.+)$", mode or ""),
        temperatures_c=_temperatures(root),
        gpu=_gpu_state(ask),
    )


def gpu_memory_mib(ask: Ask = ask) -> float | None:
    """MiB in use on the first NVIDIA GPU by everybody; None where nvidia-smi does not tell."""
    answer = ask(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"])
    line = (answer or "").splitlines()[:1]
    return float(line[0]) if line and re.fullmatch(r"[\d.]+", line[0].strip()) else None


def _temperatures(root: Path) -> dict[str, float]:
    """By name of the zone: on a Jetson these are the temperatures that tegrastats shows."""
    found: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name, degrees = _read(zone / "type").strip(), _read(zone / "temp").strip()
        # A zone that is switched off fails to read, or says something below freezing.
        if name and re.fullmatch(r"\d+", degrees):
            found[name if name not in found else f"{name} {zone.name[12:]}"] = int(degrees) / 1000
    return found


def _clocks_locked(root: Path, policies: Iterable[Path]) -> bool | None:
    """Whether lowest and highest permitted frequency are one, for the CPU and, on a Jetson, the GPU."""
    pairs = [(policy / "scaling_min_freq", policy / "scaling_max_freq") for policy in policies]
    gpus = (root / "sys/class/devfreq").glob("*")
    pairs += [
        (gpu / "min_freq", gpu / "max_freq") for gpu in gpus if re.search(r"\.(gpu|g[av]\d+b|gp\d+b|gpc)", gpu.name)
    ]
    ranges = [(_read(low).strip(), _read(high).strip()) for low, high in pairs]
    known = [(low, high) for low, high in ranges if low and high]
    return all(low == high for low, high in known) if known else None


def _gpu_state(ask: Ask) -> dict[str, str]:
    answer = ask(["nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader"])
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
