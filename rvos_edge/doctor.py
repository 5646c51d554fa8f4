"""Report on this machine for ``rvos-edge doctor``: its hardware, installed libraries and remedies."""

from __future__ import annotations

import itertools
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rvos_edge.errors import UserError

if TYPE_CHECKING:
    from rvos_edge.bundle import Bundle

_CPU_FILE = Path("/proc/cpuinfo")
_MEMORY_FILE = Path("/proc/meminfo")
_TEGRA_FILE = Path("/etc/nv_tegra_release")
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_DEVICES = Path("/dev")
_JETPACKS = {"35": 5, "36": 6, "38": 7, "39": 7}
"""Major version of Jetson Linux -> JetPack."""
_JETPACK_TENSORRT = {6: ((10, 3), (10, 3)), 7: ((10, 13), (99, 0))}
"""Oldest and newest TensorRT that comes with a JetPack."""
_MOST_GPUS = 16
_REMEDIES = {
    "OpenCV": "pip install --force-reinstall --no-deps opencv-python-headless",
    "PyAV": "pip install --force-reinstall av",
    "ONNX Runtime": "pip install --force-reinstall onnxruntime",
    "OpenVINO": "pip install --force-reinstall openvino, or pip uninstall openvino",
}
"""Advice where a component is installed and cannot be loaded."""
_WARM_UP, _TIMED = 3, 12
"""Frames of the short measurement of the backends."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        good: True if present, False if something is wrong, None if it is optional and absent.
    """

    name: str
    found: str
    good: bool | None = True
    remedy: str = ""


def examine() -> list[Finding]:
    """Check every component; a check that fails becomes a finding of its own."""
    return [_safely(name, look) for name, look in _LOOKS.items()]


def print_report(console: Console | None = None) -> None:
    """Print the findings and the speed of each backend as tables; to stdout if no console is given."""
    console = console or Console()
    table = Table(title="rvos-edge doctor")
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    marks = {True: Text("ok", style="green"), False: Text("!!", style="red"), None: Text("--", style="dim")}
    for finding in examine():
        # Text, not markup: versions and paths may hold brackets.
        table.add_row(marks[finding.good], finding.name, Text(finding.found), Text(finding.remedy))
    console.print(table)
    _print_backends(console)


def measure_backends(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Measure every installed backend on a few synthetic frames with one query; no engines are built.

    Yields backend and device, and the median time of a frame or the reason why it does not work.
    """
    from rvos_edge.engines.registry import available_backends, open_backend
    from rvos_edge.segmenter import Segmenter
    from rvos_edge.synthetic.camera import SyntheticCamera

    frames = list(itertools.islice(SyntheticCamera(seed=0, size=bundle.manifest.size), _WARM_UP + _TIMED))
    for name in available_backends(bundle, "auto"):
        try:
            segmenter = Segmenter(bundle=bundle, backend=open_backend(name, bundle=bundle, build=False))
            segmenter.set_queries(["the red ball"])
            times = [sum(segmenter.step(frame.image).timings.values()) for frame in frames]
            yield segmenter.backend_name, f"{median(times[_WARM_UP:]):.0f} ms"
        except UserError as error:
            yield name, str(error)
        except Exception as error:  # as in _safely
            yield name, f"{type(error).__name__}: {error}"


def _print_backends(console: Console) -> None:
    from rvos_edge.bundle import Bundle, shipped_bundle
    from rvos_edge.manifest import format_size

    try:
        bundle = Bundle.open(shipped_bundle())
        table = Table(title=f"backends: a frame of {format_size(bundle.manifest.size)}, the shipped model, one query")
        table.add_column("backend")
        table.add_column("time", overflow="fold")
        for row in measure_backends(bundle):
            table.add_row(*map(Text, row))
    except UserError:
        return  # reported as a finding
    except Exception as error:  # as in _safely
        console.print(Text(f"The backends could not be measured: {type(error).__name__}: {error}", style="red"))
        return
    console.print(table)


def _safely(name: str, look: Callable[[str], Finding]) -> Finding:
    try:
        return look(name)
    except Exception as error:  # a broken component must not break the report
        remedy = _REMEDIES.get(name, "reinstall it, or report this")
        return Finding(name, f"{type(error).__name__}: {error}", False, remedy)


def _cpu(name: str) -> Finding:
    model = _match(_CPU_FILE, r"^(?:model name|Model)\s*:\s*(.+)$") or platform.processor() or platform.machine()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding(name, f"{model}, {usable} of {os.cpu_count()} cores usable")


def _memory(name: str) -> Finding:
    total, free = (_match(_MEMORY_FILE, rf"^{key}:\s*(\d+) kB$") for key in ("MemTotal", "MemAvailable"))
    if total is None or free is None:
        return Finding(name, "unknown on this system", None)
    return Finding(name, f"{int(free) / 2**20:.1f} of {int(total) / 2**20:.1f} GiB free")


def _jetson_release() -> tuple[str, int | None]:
    """Return the release of Jetson Linux and its JetPack; empty without a Jetson, None if the release is not known."""
    if not _TEGRA_FILE.is_file():
        return "", None
    release = _TEGRA_FILE.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
    major = re.match(r"R(\d+)", release)
    return release, _JETPACKS.get(major[1]) if major else None


def _jetson(name: str) -> Finding:
    release, jetpack = _jetson_release()
    if not release:
        return Finding(name, "this is no Jetson", None)
    if jetpack is None:
        return Finding(name, release, None, "this release is not known: JetPack 6 and 7 are")
    if jetpack < 6:
        return Finding(name, f"JetPack {jetpack}, {release}", False, "its TensorRT is too old: install JetPack 6")
    return Finding(name, f"JetPack {jetpack}, {release}")


def _driver(name: str) -> Finding:
    version = _match(_DRIVER_FILE, r"Kernel Module.*?\s(\d+\.[\d.]+)\s")
    if version is None:
        return Finding(name, "none", None, "for CUDA: install the driver of your GPU")
    return Finding(name, version)


def _gpu(name: str) -> Finding:
    from rvos_edge.engines.tensorrt.gpu import find_gpu

    gpus = list(itertools.takewhile(bool, map(find_gpu, range(_MOST_GPUS))))
    if not gpus:
        return Finding(name, "none", None, "without one, use ONNX Runtime or OpenVINO on the CPU")
    remedy = "the second one is --device cuda:1" if len(gpus) > 1 else ""
    found = "; ".join(f"{gpu.name}, compute capability {gpu.capability}" for gpu in gpus if gpu)
    return Finding(name, found, True, remedy)


def _openvino(name: str) -> Finding:
    if find_spec("openvino") is None:
        return Finding(name, "not installed", None, 'the fastest on most CPUs: pip install "rvos-edge[openvino]"')
    import openvino

    devices = ", ".join(openvino.Core().available_devices)
    return Finding(name, f"{openvino.__version__.split('-')[0]} ({devices})")


def _tensorrt(name: str) -> Finding:
    """Describe a flavour of TensorRT and the GPUs that it builds engines for."""
    from rvos_edge.engines.tensorrt import api
    from rvos_edge.engines.tensorrt.gpu import find_gpu

    flavour = api.parse_flavour(name.lower())
    if not api.is_installed(flavour):
        return Finding(name, "not installed", None, api.how_to_get(flavour))
    trt = api.load(flavour)
    known = api.known_capabilities(trt)
    aims = f"builds for compute capability {', '.join(known)}" if known else "builds for the GPU it finds"
    found = f"{api.version(trt)}, {aims}"
    gpu = find_gpu()
    if gpu is None:
        return Finding(name, found, True if known else None, "running needs a GPU")
    if not api.supports(trt, gpu.capability):
        return Finding(name, found, None, f"it cannot use {gpu.name}, {gpu.capability}: take the full TensorRT")
    mismatch = _jetpack_mismatch(api.version(trt)) if flavour == "tensorrt" else ""
    return Finding(name, found, not mismatch, mismatch)


def _jetpack_mismatch(version: str) -> str:
    """Say what to do where TensorRT is not that of this Jetson's JetPack; empty if it is, or there is no Jetson."""
    _, jetpack = _jetson_release()
    number = tuple(map(int, version.split(".")[:2]))
    if jetpack not in _JETPACK_TENSORRT:
        return ""
    oldest, newest = _JETPACK_TENSORRT[jetpack]
    if oldest <= number <= newest:
        return ""
    if number < oldest:
        return f"JetPack {jetpack} has {oldest[0]}.{oldest[1]}: sudo apt install nvidia-jetpack"
    return f"JetPack {jetpack} has {newest[0]}.{newest[1]}, this is one for servers: pip uninstall tensorrt"


def _onnxruntime(name: str) -> Finding:
    import onnxruntime

    providers = ", ".join(item.removesuffix("ExecutionProvider") for item in onnxruntime.get_available_providers())
    usable = "CUDA" in providers or not _DRIVER_FILE.is_file()
    remedy = "" if usable else "to use the GPU: pip uninstall onnxruntime, pip install onnxruntime-gpu"
    return Finding(name, f"{onnxruntime.__version__} ({providers})", True, remedy)


def _opencv(name: str) -> Finding:
    import cv2

    build = cv2.getBuildInformation()
    has = {key: bool(re.search(rf"^\s*{key}:\s*YES", build, re.MULTILINE)) for key in ("FFMPEG", "GStreamer")}
    found = f"{cv2.__version__}, " + ", ".join(f"{key} {'yes' if there else 'no'}" for key, there in has.items())
    if not has["FFMPEG"]:
        return Finding(name, found, False, "streams need FFMPEG: pip install --force-reinstall opencv-python-headless")
    reads_csi = has["GStreamer"] or shutil.which("gst-launch-1.0")
    remedy = "" if reads_csi else "for Jetson CSI cameras: install gstreamer1.0-tools, or an OpenCV with GStreamer"
    return Finding(name, found, True, remedy)


def _pyav(name: str) -> Finding:
    import av

    missing = [codec for codec in ("libx264", "libvpx-vp9") if codec not in av.codec.codecs_available]
    remedy = f"without {' and '.join(missing)} some videos cannot be written: pip install av" if missing else ""
    return Finding(name, f"{av.__version__}, reads and writes videos", True, remedy)


def _cameras(name: str) -> Finding:
    nodes = sorted(map(str, _DEVICES.glob("video*")), key=lambda node: (len(node), node))
    if not nodes:
        return Finding(name, "none", None, "plug one in, or use a file, a URL or --source synthetic")
    closed = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        return Finding(name, ", ".join(nodes), False, f"no permission for {closed[0]}: join the group 'video'")
    return Finding(name, ", ".join(nodes))


def _bundle(name: str) -> Finding:
    from rvos_edge.bundle import Bundle, shipped_bundle

    try:
        manifest = Bundle.open(shipped_bundle()).manifest
    except UserError as error:
        return Finding(name, str(error), False, "reinstall rvos-edge, or give --bundle")
    height, width = manifest.size
    return Finding(name, f"{manifest.name}, {height}x{width}, {len(manifest.graphs)} graphs, verified")


def _distribution(remedy: str, *candidates: str) -> Callable[[str], Finding]:
    """Make a check for the first installed of several distributions, without importing it."""

    def look(name: str) -> Finding:
        for candidate in candidates:
            try:
                return Finding(name, f"{candidate} {metadata.version(candidate)}")
            except metadata.PackageNotFoundError:
                continue
        return Finding(name, "not installed", None, remedy)

    return look


def _match(path: Path, pattern: str) -> str | None:
    """Return the first group of the first match in a file; None without a file or a match."""
    if not path.is_file():
        return None
    match = re.search(pattern, path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return match[1].strip() if match else None


_LOOKS: dict[str, Callable[[str], Finding]] = {
    "Python": lambda name: Finding(name, f"{platform.python_version()} ({sys.executable})"),
    "platform": lambda name: Finding(name, platform.platform()),
    "CPU": _cpu,
    "memory": _memory,
    "Jetson release": _jetson,
    "NVIDIA driver": _driver,
    "NVIDIA GPU": _gpu,
    "shipped bundle": _bundle,
    "ONNX Runtime": _onnxruntime,
    "OpenCV": _opencv,
    "PyAV": _pyav,
    "cameras": _cameras,
    "OpenVINO": _openvino,
    "TensorRT": _tensorrt,
    "TensorRT-RTX": _tensorrt,
    "CUDA for Python": _distribution('to run engines: pip install "rvos-edge[cuda]"', "cuda-bindings", "pycuda"),
    "PyTorch": _distribution('to train: pip install "rvos-edge[train]"', "torch"),
    "ONNX": _distribution('to export: pip install "rvos-edge[export]"', "onnx"),
}
