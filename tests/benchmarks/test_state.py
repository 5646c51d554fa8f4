"""The state of a machine, from files and commands as they are found on real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rvos_edge.benchmarks.state import gpu_memory_mib, read_machine, read_state


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def nothing(command: Sequence[str]) -> str | None:
    return None


def orin(root: Path, *, locked: bool) -> Path:
    """A Jetson Orin's /proc and /sys, as far as they are read."""
    low = {True: "1510400", False: "729600"}[locked]
    return write(
        root,
        {
            "proc/cpuinfo": "processor : 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\n",
            "proc/meminfo": "MemTotal:        7802076 kB\nMemAvailable: 1 kB\n",
            "proc/loadavg": "0.31 0.20 0.10 1/300 999\n",
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil\n",
            "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": f"{low}\n",
            "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1510400\n",
            "sys/class/devfreq/17000000.gpu/min_freq": "624750000\n",
            "sys/class/devfreq/17000000.gpu/max_freq": "624750000\n",
            "sys/class/devfreq/15340000.vic/min_freq": "115200000\n",  # not the GPU
            "sys/class/devfreq/15340000.vic/max_freq": "729600000\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "48531\n",
            "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
            "sys/class/thermal/thermal_zone1/temp": "-256000\n",  # switched off
        },
    )


def test_jetson(tmp_path: Path) -> None:
    def ask(command: Sequence[str]) -> str | None:
        return "NV Power Mode: MAXN_SUPER\n2" if command[0] == "nvpmodel" else None

    machine = read_machine(root=orin(tmp_path, locked=True), run=ask)
    assert (machine.name, machine.memory_mib) == ("NVIDIA Jetson Orin Nano Developer Kit", 7619)
    assert machine.cpu == "ARMv8 Processor rev 1 (v8l)"
    state = read_state(root=tmp_path, run=ask)
    assert state.load_average == 0.31
    assert state.governors == ("schedutil",)
    assert state.clocks_locked is True
    assert state.power_mode == "MAXN_SUPER"
    assert state.temperatures_c == {"cpu-thermal": 48.531}


def test_clocks_are_not_locked_where_they_may_move(tmp_path: Path) -> None:
    assert read_state(root=orin(tmp_path, locked=False), run=nothing).clocks_locked is False


def test_nvidia_card(tmp_path: Path) -> None:
    def ask(command: Sequence[str]) -> str | None:
        if command[0] != "nvidia-smi":
            return None
        if "memory.used" in command[1]:
            return "1234"
        return "NVIDIA GeForce RTX 4090, 570.1, P0, 61, 2520 MHz, 10501 MHz, 312.4 W, [N/A], 0x0000000000000004"

    write(tmp_path, {"proc/cpuinfo": "model name : Some CPU\n"})
    assert read_machine(root=tmp_path, run=ask, uses_gpu=True).name == "NVIDIA GeForce RTX 4090"
    assert read_machine(root=tmp_path, run=ask).name.startswith("Some CPU, ")
    gpu = read_state(root=tmp_path, run=ask).gpu
    assert gpu["clocks.sm"] == "2520 MHz"
    assert gpu["clocks_throttle_reasons.active"] == "0x0000000000000004"
    assert "power.limit" not in gpu
    assert gpu_memory_mib(ask) == 1234


def test_machine_without_readable_state(tmp_path: Path) -> None:
    state = read_state(root=tmp_path, run=nothing)
    assert (state.load_average, state.clocks_locked, state.power_mode) == (None, None, None)
    assert (state.governors, state.temperatures_c, state.gpu) == ((), {}, {})
    assert read_machine(root=tmp_path, run=nothing).cores >= 1
