"""Proof of the CUDA half on the machine at hand: ``python -m rvos_edge.benchmarks.gpu_check``.

It needs an NVIDIA GPU, its driver, cuda-bindings and PyTorch. First come CUDA's calls and the rules of captures. Then
whole frames with engines that are PyTorch modules, so that memory, streams, captures, replays and swaps are proven
without TensorRT: launched plainly, recorded, and on two streams at once they must give the same numbers. Then ONNX
Runtime, and TensorRT if it is there, with the proof that ``rvos-edge verify`` makes. ``--cpu``, in the checkout's
folder ``tests``, tries the check itself: CUDA is played, and nothing is proven about a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from rvos_edge.atomic import write_output
from rvos_edge.bundle import Bundle
from rvos_edge.catalogue import find_bundle
from rvos_edge.engines.base import Backend
from rvos_edge.engines.device_names import gpu_index
from rvos_edge.engines.registry import open_backend
from rvos_edge.engines.tensorrt import api
from rvos_edge.engines.tensorrt.backend import Parts, TensorRtBackend
from rvos_edge.engines.tensorrt.cuda import Cuda, CudaError, host_view
from rvos_edge.engines.tensorrt.cuda_graphs import GRAPH_STAGE
from rvos_edge.engines.tensorrt.gpu import find_gpu
from rvos_edge.engines.tensorrt.open_cuda import open_cuda
from rvos_edge.errors import UserError, one_line
from rvos_edge.flow.policy import FlowOptions
from rvos_edge.manifest import HOST_GRAPHS, GraphSpec
from rvos_edge.parity.record import load_reference
from rvos_edge.parity.verify import check, prove
from rvos_edge.segmenter import Segmenter
from rvos_edge.synthetic.camera import SyntheticCamera

_QUERIES = ("the red ball", "a dog")
_BYTES = 1 << 20


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        passed: None if it could not be made; ``found`` says why.
        milliseconds: Median of a frame; None where nothing is timed.
    """

    name: str
    passed: bool | None
    found: str
    milliseconds: float | None = None


class Mixture(nn.Module):
    """A cheap stand-in for a graph: each output depends on every element of every input."""

    def __init__(self, spec: GraphSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Read the inputs and write the outputs in place; all are on one device."""
        mixed = torch.stack([(1 + index) * tensor.float().mean() for index, tensor in enumerate(inputs)]).sum()
        for output in outputs:
            ramp = torch.linspace(-1, 1, output.numel(), device=output.device).view(output.shape)
            output.copy_(torch.sin(mixed + ramp))


class _Context:
    """An execution context that runs a module on the stream that it is given."""

    def __init__(self, machine: TorchMachine, spec: GraphSpec) -> None:
        self._machine = machine
        self._spec = spec
        self._module = Mixture(spec)
        self._addresses: dict[str, int] = {}
        self._rows = 1

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._rows = shape[0]
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def set_device_memory(self, address: int, nbytes: int) -> None: ...

    def update_device_memory_size_for_shapes(self) -> int:
        return _BYTES

    def execute_async_v3(self, stream: int) -> bool:
        self._machine.run(stream, self._run)
        return True

    def _run(self) -> None:
        inputs, outputs = ([self._tensor(spec) for spec in specs] for specs in (self._spec.inputs, self._spec.outputs))
        with torch.no_grad():
            self._module(inputs, outputs)

    def _tensor(self, spec: Any) -> Tensor:
        shape = tuple(self._rows if isinstance(dim, str) else dim for dim in spec.shape)
        return self._machine.tensor(self._addresses[spec.name], shape, spec.dtype)


class TorchMachine:
    """A device, CUDA for it, and PyTorch on it: what is TensorRT's is played by modules."""

    def __init__(self, index: int, cuda: Any, *, on_cpu: bool) -> None:
        self.cuda = cuda
        self._index = index
        self._on_cpu = on_cpu
        # Memory that is allocated in a capture must stay where it is for the replays.
        self._pool = None if on_cpu else torch.cuda.MemPool()

    def run(self, stream: int, work: Callable[[], None]) -> None:
        """Queue work on a stream."""
        if self._pool is None:
            self.cuda.enqueue(stream, work)
            return
        external = torch.cuda.ExternalStream(stream, device=self._index)  # type: ignore[no-untyped-call]
        with torch.cuda.device(self._index), torch.cuda.stream(external), torch.cuda.use_mem_pool(self._pool):
            work()

    def tensor(self, address: int, shape: tuple[int, ...], dtype: str) -> Tensor:
        """View device memory as a tensor."""
        if self._on_cpu:
            nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            return torch.from_numpy(self.cuda.bytes_at(address, nbytes).view(dtype).reshape(shape))
        described = {"shape": shape, "typestr": np.dtype(dtype).str, "data": (address, False), "version": 3}
        return torch.as_tensor(SimpleNamespace(__cuda_array_interface__=described), device=f"cuda:{self._index}")

    def tensorrt(self, bundle: Bundle) -> Any:
        """Make the module that ``TensorRtBackend`` takes for TensorRT."""

        def engine(name: str) -> Any:
            spec = bundle.manifest.graphs[name]
            tensors = {tensor.name: tensor for tensor in (*spec.inputs, *spec.outputs)}
            names = list(tensors)
            return SimpleNamespace(
                num_io_tensors=len(names),
                get_tensor_name=names.__getitem__,
                get_tensor_mode=lambda name: "in" if tensors[name] in spec.inputs else "out",
                get_tensor_dtype=lambda name: np.dtype(tensors[name].dtype).type,
                get_tensor_shape=lambda name: [-1 if isinstance(dim, str) else dim for dim in tensors[name].shape],
                create_execution_context=lambda how: _Context(self, spec),
            )

        runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine(plan.decode()))
        logger = type("ILogger", (), {"Severity": SimpleNamespace(ERROR=1, INTERNAL_ERROR=0, WARNING=2)})
        return SimpleNamespace(
            __version__="0.0.0",
            ILogger=logger,
            Runtime=lambda logger: runtime,
            nptype=lambda dtype: dtype,
            TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
            ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user"),
        )


def check_machine(bundle: Bundle, make_cuda: Callable[[], Any], device: str, frames: int) -> Iterator[Check]:
    """Make all checks; a check that fails does not keep the others from being made.

    Args:
        make_cuda: Opens CUDA, for one stream each.
        device: "cuda", "cuda:1", or "cpu" where CUDA is played.
    """
    yield from _guarded("CUDA calls", lambda: _calls(make_cuda()))
    yield from _guarded("frames", lambda: _frames(bundle, make_cuda, device, frames))
    yield from _guarded("ONNX Runtime", lambda: [_engine(bundle, "onnxruntime", device, frames)])
    for flavour in api.FLAVOURS:
        yield from _guarded(flavour, lambda flavour=flavour: [_tensorrt(bundle, flavour, device, frames)])  # type: ignore[misc]


def _guarded(name: str, make: Callable[[], Sequence[Check]]) -> Sequence[Check]:
    try:
        return make()
    except Exception as error:  # of any kind: what is checked may be broken in any way
        return [Check(name, False, one_line(f"{type(error).__name__}: {error}"))]


def _calls(cuda: Cuda) -> list[Check]:
    """Try every call that the runtime makes, and what a capture forbids."""
    with cuda.current():
        stream, start, end = cuda.create_stream(), cuda.create_event(timed=True), cuda.create_event(timed=True)
        device, pinned = cuda.malloc(_BYTES), cuda.malloc_host(_BYTES)
        host_view(pinned, _BYTES)[:] = 3
        cuda.record(start, stream)
        cuda.upload(device, pinned, _BYTES, stream)
        cuda.record(end, stream)
        cuda.synchronize(stream)
        copied = cuda.elapsed(start, end)
        cuda.begin_capture(stream)
        cuda.fill(device, 7, _BYTES, stream)
        graph = cuda.end_capture(stream)
        executable = cuda.instantiate(graph)
        cuda.destroy_graph(graph)
        cuda.launch(executable, stream)
        cuda.download(pinned, device, _BYTES, stream)
        cuda.synchronize(stream)
        replayed = bool((host_view(pinned, _BYTES) == 7).all())
        cuda.begin_capture(stream)
        refused = False
        try:
            cuda.synchronize(stream)
        except CudaError:
            refused = True
        with contextlib.suppress(CudaError):
            cuda.destroy_graph(cuda.end_capture(stream))
        cuda.fill(device, 1, _BYTES, stream)
        cuda.download(pinned, device, _BYTES, stream)
        cuda.synchronize(stream)
        survives = bool((host_view(pinned, _BYTES) == 1).all())
        cuda.destroy_executable(executable)
        for event in (start, end):
            cuda.destroy_event(event)
        cuda.free(device)
        cuda.free_host(pinned)
        cuda.destroy_stream(stream)
    return [
        Check("CUDA calls", replayed, f"{cuda.name}: copies, events, a recorded fill; 1 MiB up in {copied:.3f} ms"),
        Check("captures", refused and survives, "waiting in one is refused, and the stream works afterwards"),
    ]


def _frames(bundle: Bundle, make_cuda: Callable[[], Any], device: str, frames: int) -> list[Check]:
    """Segment the same frames plainly, recorded, and on two streams at once."""
    camera = SyntheticCamera(seed=0, size=bundle.manifest.size)
    images = [frame.image for frame in itertools.islice(camera, frames)]
    names = [name for name in bundle.manifest.graphs if name not in HOST_GRAPHS]

    def segment(folder: Path, record: bool) -> tuple[list[NDArray[np.float32]], list[float], int, str]:
        machine = TorchMachine(gpu_index(device), make_cuda(), on_cpu=device == "cpu")
        parts = Parts(machine.tensorrt(bundle), machine.cuda, {name: folder / name for name in names})
        backend = TensorRtBackend(
            bundle=bundle, flavour="tensorrt", gpu=gpu_index(device), record=record, reason="played", parts=parts
        )
        segmenter = Segmenter(bundle=bundle, backend=backend, flow=FlowOptions(every=2))
        margins, times, replayed = [], [], 0
        for index, image in enumerate(images):
            if index in (0, frames // 2):  # another number of queries: other buffers, contexts and recordings
                segmenter.set_queries(_QUERIES[: 2 if index == 0 else 1])
            start = time.perf_counter()
            result = segmenter.step(image)
            times.append(1e3 * (time.perf_counter() - start))
            margins.append(result.margins.copy())
            replayed += GRAPH_STAGE in result.timings
        return margins, times[len(times) // 3 :], replayed, segmenter.backend_reason

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in names:
            (folder / name).write_text(name, encoding="utf-8")
        plain = segment(folder, False)
        recorded = segment(folder, True)
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda record: segment(folder, record), (True, True)))
    findings = [Check("frames, plain", True, "launch by launch", median(plain[1]))]
    for name, runs in (("frames, recorded", [recorded]), ("frames, two streams", both)):
        worst = max(float(np.abs(a - b).max()) for run in runs for a, b in zip(run[0], plain[0], strict=True))
        replayed, reason = min(run[2] for run in runs), runs[0][3]
        passed = worst == 0 and replayed >= frames // 3 and reason == "played"
        found = f"differs from plain by {worst:g}; {replayed} of {frames} frames replayed"
        findings.append(Check(name, passed, found if reason == "played" else f"{found}; {reason}", median(runs[0][1])))
    return findings


def _engine(bundle: Bundle, name: str, device: str, frames: int, *, build: bool = False) -> Check:
    """Prove a backend against PyTorch's record, and time it."""

    def make() -> Backend:
        return open_backend(name, device=device, bundle=bundle, build=build)

    proof = prove(bundle, load_reference(bundle), make)
    check(bundle, proof)
    segmenter = Segmenter(bundle=bundle, backend=make())
    segmenter.set_queries(_QUERIES[:1])
    times = []
    for frame in itertools.islice(SyntheticCamera(seed=0, size=bundle.manifest.size), frames):
        start = time.perf_counter()
        segmenter.step(frame.image)
        times.append(1e3 * (time.perf_counter() - start))
    graph, worst = max(proof.graphs.items(), key=lambda item: item[1].relative_l2)
    found = f"mask IoU {proof.mask_iou:.4f}, {graph} differs most: {worst.relative_l2:.1e}"
    return Check(f"{segmenter.backend_name}", True, found, median(times[len(times) // 3 :]))


def _tensorrt(bundle: Bundle, flavour: api.Flavour, device: str, frames: int) -> Check:
    if device == "cpu":
        return Check(flavour, None, "needs a GPU")
    if not api.is_installed(flavour):
        return Check(flavour, None, f"not installed: {api.how_to_get(flavour)}")
    gpu = find_gpu(gpu_index(device))
    if gpu is not None and not api.supports(api.load(flavour), gpu.capability):
        return Check(flavour, None, f"builds no engines for {gpu.name}, {gpu.capability}")
    return _engine(bundle, flavour, device, frames, build=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the checks, print a table, write JSON; returns 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m rvos_edge.benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--bundle", type=Path, help="name or folder of a bundle; edge if left out")
    parser.add_argument("--device", default="cuda", help="cuda, or cuda:1 for the second GPU")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--cpu", action="store_true", help="play CUDA, to try the check; in the folder tests")
    given = parser.parse_args(arguments)
    try:
        if given.frames < 12:
            raise UserError(f"--frames {given.frames} are too few to see replays; give at least 12.")
        device = "cpu" if given.cpu else given.device
        gpu = None if given.cpu else find_gpu(gpu_index(device))
        if gpu is None and not given.cpu:
            raise UserError(f"device '{device}': no NVIDIA GPU with a driver is here; try the check itself with --cpu.")
        name = "CUDA is played" if gpu is None else f"{gpu.name}, compute capability {gpu.capability}"
        bundle = Bundle.open(find_bundle(given.bundle))
        make_cuda = _played_cuda() if given.cpu else lambda: open_cuda(gpu_index(device))
        findings = list(check_machine(bundle, make_cuda, device, given.frames))
        _print(findings, f"{name}; {bundle.manifest.name}, {given.frames} frames", Console())
        if given.json is not None:
            facts = {"machine": name, "torch": torch.__version__, "checks": [asdict(finding) for finding in findings]}
            write_output(given.json, json.dumps(facts, indent=2) + "\n")
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return int(any(finding.passed is False for finding in findings))


def _played_cuda() -> Callable[[], Any]:
    try:
        make: Callable[[], Any] = import_module("support.fake_cuda").FakeCuda
    except ImportError as error:
        raise UserError(
            "--cpu plays CUDA with support/fake_cuda.py: start it in the checkout's folder tests."
        ) from error
    return make


def _print(findings: Sequence[Check], title: str, console: Console) -> None:
    table = Table(title=title)
    for column in ("", "check", "found", "ms"):
        table.add_column(column, overflow="fold", justify="right" if column == "ms" else "left")
    marks = {True: Text("ok", style="green"), False: Text("!!", style="red"), None: Text("--", style="dim")}
    for finding in findings:
        milliseconds = "" if finding.milliseconds is None else f"{finding.milliseconds:.2f}"
        table.add_row(marks[finding.passed], finding.name, Text(finding.found), milliseconds)
    console.print(table)


if __name__ == "__main__":
    raise SystemExit(main())
