"""The runtime against baselines on the same frames, in turns: ``python -m rvos_edge.benchmarks.peers``.

Results are ratios of times; they hold for the machine of the measurement.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rvos_edge.benchmarks.fresh import open_run
from rvos_edge.benchmarks.peer_models import OpenCvFlow, RefVosShape, ResearchCode
from rvos_edge.benchmarks.stats import Ratio, paired_ratio
from rvos_edge.bundle import Bundle, sha256_of
from rvos_edge.engines.registry import available_backends
from rvos_edge.errors import UserError
from rvos_edge.export.package import ExportOptions, export_bundle
from rvos_edge.manifest import FLOW_GRAPHS, parse_size
from rvos_edge.parity.verify import mask_iou
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.synthetic.camera import SyntheticCamera
from rvos_edge.trainer.checkpoint import load_checkpoint, save_checkpoint
from rvos_edge.trainer.model.weights import InitialWeights
from rvos_edge.trainer.tasks.from_parts import assemble

Frame = NDArray[np.uint8]
EAGER = "PyTorch eager"
REFVOS = "RefVOS' shape"
LEAST_IOU = 0.99
KINDS = ("compile", "refvos", "flow")
"""Baselines that ``--skip`` can leave out."""
_SCENE = 2
_TURN = 5
"""Consecutive frames of one peer: after single frames its threads would still spin during the next peer's."""


@dataclass(frozen=True)
class PeerOptions:
    """Options of the comparison.

    Attributes:
        warmup: Number of frames before them, during which ``torch.compile`` compiles.
    """

    checkpoint: Path | None = None
    preset: str = "edge"
    bundle: Path | None = None
    size: tuple[int, int] | None = None
    frames: int = 20
    warmup: int = 4
    backends: Sequence[str] = ()
    skip: Sequence[str] = ()
    threads: int | None = None


@dataclass(frozen=True)
class Standing:
    """Result of one peer.

    Attributes:
        ratio: Time of the baseline over the peer's time: above 1 where the peer is faster.
        iou: IoU of its masks with those of PyTorch eager; None for other networks.
    """

    name: str
    ratio: Ratio
    iou: float | None = None


@dataclass(frozen=True)
class PeerReport:
    """Results of a comparison."""

    whole: list[Standing]
    flow: list[Standing]
    flow_baseline: str
    frames: int
    trained: bool


Step = Callable[[Frame], "tuple[NDArray[np.bool_] | None, float | None]"]
"""Function from a frame to (masks, seconds of the flow), either None where it does not apply."""


@dataclass
class _Peer:
    name: str
    step: Step
    seconds: list[float] = field(default_factory=list)
    flow_seconds: list[float] = field(default_factory=list)
    masks: list[NDArray[np.bool_]] = field(default_factory=list)

    def take(self, frame: Frame, *, counts: bool) -> None:
        """Run a frame; masks are kept from the first frame on, times after the warm-up (``counts``)."""
        begin = time.perf_counter()
        masks, flow = self.step(frame)
        took = time.perf_counter() - begin
        if masks is not None:
            self.masks.append(masks)
        if counts:
            self.seconds.append(took)
            if flow is not None:
                self.flow_seconds.append(flow)


def compare_peers(options: PeerOptions, *, on_frame: Callable[[int, int], None] | None = None) -> PeerReport:
    """Run the comparison.

    Raises:
        UserError: An option is out of range, or the checkpoint or bundle is damaged or they do not belong together.
    """
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads {options.threads} is out of range; give at least 1.")
    if options.frames < 1 or options.warmup < 2:
        raise UserError("--frames must be at least 1 and --warmup at least 2: the first frame of a video has no flow.")
    for name in options.skip:
        if name not in KINDS:
            raise UserError(f"--skip {name}: there is no such peer; choose {', '.join(KINDS)}.")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
        cv2.setNumThreads(options.threads)
    with tempfile.TemporaryDirectory(prefix="rvos-edge-") as folder:
        checkpoint, bundle = _prepare(options, Path(folder))
        query, frames = _scene(bundle.manifest.size, options.warmup + options.frames)
        eager, *others = _torch_peers(checkpoint, query, bundle.manifest.size, options.skip)
        runtimes = _runtimes(bundle, options, query)
        flows = _flow_peers(bundle, options.skip)
        peers = [eager, *others, *runtimes, *flows]
        for number, start in enumerate(range(0, len(frames), _TURN)):
            turn = range(start, min(start + _TURN, len(frames)))
            first = number % len(peers)
            for peer in (*peers[first:], *peers[:first]):
                for index in turn:
                    peer.take(frames[index], counts=index >= options.warmup)
            if on_frame is not None:
                on_frame(turn.stop, len(frames))
    whole = [
        Standing(peer.name, paired_ratio(eager.seconds, peer.seconds), _iou(peer, eager))
        for peer in (*others, *runtimes)
    ]
    flow: list[Standing] = []
    if flows:
        graphs = runtimes[0].flow_seconds
        flow = [Standing(peer.name, paired_ratio(graphs, peer.flow_seconds)) for peer in (*runtimes[1:], *flows)]
    flow_baseline = f"flow graphs on {runtimes[0].name}"
    return PeerReport(whole, flow, flow_baseline, options.frames, bundle.manifest.trained)


def print_report(report: PeerReport, console: Console) -> None:
    """Print the tables of ratios, and a warning where masks differ from PyTorch's."""
    whole = f"Whole frames, against {EAGER} (sentence and both frames encoded on every frame)"
    console.print(_table(whole, report.whole, "mask IoU"))
    if report.flow:
        console.print(_table(f"Flow alone, against the {escape(report.flow_baseline)}", report.flow))
    weights = "trained weights" if report.trained else "random weights"
    console.print(f"{report.frames} frames, {weights}; RefVOS' shape always has random ones.")
    for standing in report.whole:
        if standing.iou is not None and standing.iou < LEAST_IOU:
            console.print(
                f"The masks of {escape(standing.name)} agree with PyTorch's only to {standing.iou:.3f} IoU: weights "
                "are stored in eight bits, or untrained (margins are then noise around zero), or the graphs are wrong.",
                style="red",
            )


def _table(title: str, standings: Sequence[Standing], *more: str) -> Table:
    table = Table(title=title)
    for column in ("", "times as fast", "95 % interval", *more):
        table.add_column(column, justify="right" if column else "left")
    for row in standings:
        interval = "too few frames" if row.ratio.low is None else f"{row.ratio.low:.2f} to {row.ratio.high:.2f}"
        iou = ["-" if row.iou is None else f"{row.iou:.4f}"] if more else []
        table.add_row(escape(row.name), f"{row.ratio.value:.2f}", interval, *iou)
    return table


def _iou(peer: _Peer, eager: _Peer) -> float | None:
    """IoU of a peer's masks with PyTorch's; None for RefVOS' shape, which is another network."""
    return None if peer.name == REFVOS else mask_iou(peer.masks, eager.masks)


def _prepare(options: PeerOptions, folder: Path) -> tuple[Path, Bundle]:
    """Checkpoint and bundle of the same weights."""
    path = options.checkpoint
    if path is None:
        if options.bundle is not None:
            raise UserError("--bundle needs the checkpoint that it was made of; give --checkpoint.")
        path = folder / options.preset
        save_checkpoint(path, assemble(options.preset, InitialWeights()))
    if options.bundle is not None:
        bundle = Bundle.open(options.bundle, size=options.size)
        if sha256_of(path / "model.safetensors") != bundle.manifest.checkpoint_sha256:
            raise UserError(f"{options.bundle} was not made of {path}; give the bundle of that checkpoint, or none.")
        return path, bundle
    # float32 weights, so that masks can be equal; storage does not affect time, weights are widened when loaded.
    sizes = [options.size] if options.size else []
    wanted = ExportOptions(sizes=sizes, precision="bfloat16", weights="float32")
    return path, Bundle.open(export_bundle(path, folder / "bundle", wanted))


def _scene(size: tuple[int, int], count: int) -> tuple[str, list[Frame]]:
    """A query about the largest object of a synthetic scene that a sentence can single out, and the frames."""
    camera = SyntheticCamera(seed=_SCENE, size=size, frames=count)
    frames = list(camera)
    said = [
        (int(mask.sum()), words[0]) for mask, words in zip(frames[0].masks, camera.expressions(0), strict=True) if words
    ]
    return max(said)[1], [frame.image for frame in frames]


def _torch_peers(checkpoint: Path, query: str, size: tuple[int, int], skip: Sequence[str]) -> list[_Peer]:
    """The peers that run in PyTorch, eager mode first."""
    loaded = load_checkpoint(checkpoint)
    peers = []
    for name, compiled in ((EAGER, False), ("torch.compile", True)):
        if not compiled or "compile" not in skip:
            code = ResearchCode(checkpoint=loaded, query=query, size=size, compiled=compiled)
            peers.append(_Peer(name, _without_flow(code.step)))
    if "refvos" not in skip:
        peers.append(_Peer(REFVOS, _without_flow(RefVosShape(size=size).step)))
    return peers


def _without_flow(step: Callable[[Frame], NDArray[np.bool_]]) -> Step:
    return lambda frame: (step(frame), None)


def _runtimes(bundle: Bundle, options: PeerOptions, query: str) -> list[_Peer]:
    peers = []
    for name in options.backends or available_backends(bundle, "auto"):
        try:
            segmenter = open_run(bundle.path, bundle.manifest.size, name, device="auto", threads=options.threads)
        except UserError:
            if options.backends:
                raise
            continue
        segmenter.set_queries([query])
        peers.append(_Peer(segmenter.backend_name, _runtime_step(segmenter)))
    return peers


def _runtime_step(segmenter: SegmenterProtocol) -> Step:
    def step(frame: Frame) -> tuple[NDArray[np.bool_], float | None]:
        result = segmenter.step(frame)
        flow = [result.timings[name] for name in FLOW_GRAPHS if name in result.timings]
        return result.masks, sum(flow) / 1000 if flow else None

    return step


def _flow_peers(bundle: Bundle, skip: Sequence[str]) -> list[_Peer]:
    spec = bundle.manifest.flow
    if spec is None or "flow" in skip:
        return []
    size = bundle.manifest.size[0] // spec.scale, bundle.manifest.size[1] // spec.scale
    return [_Peer(f"OpenCV {method}", OpenCvFlow(method=method, size=size).step) for method in ("DIS", "Farneback")]


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m rvos_edge.benchmarks.peers", description=(__doc__ or "").split(":")[0]
    )
    parser.add_argument("--checkpoint", type=Path, help="directory; the preset with random weights by default")
    parser.add_argument("--preset", default="edge", help="edge, desktop or paper, without a checkpoint")
    parser.add_argument("--bundle", type=Path, help="bundle of the checkpoint; exported by default")
    parser.add_argument("--size", type=parse_size, help="network input as HxW; the checkpoint's if left out")
    parser.add_argument("--frames", type=int, default=20, help="measured frames")
    parser.add_argument("--warmup", type=int, default=4, help="frames before them")
    parser.add_argument("--backend", dest="backends", action="append", default=[], help="repeatable; all if left out")
    parser.add_argument("--skip", action="append", default=[], help=f"{', '.join(KINDS)}; repeatable")
    parser.add_argument("--threads", type=int, help="CPU threads of every peer")
    console = Console(stderr=True)
    try:
        options = PeerOptions(**vars(parser.parse_args()))
        with console.status("preparing") as status:
            report = compare_peers(options, on_frame=lambda done, of: status.update(f"round {done} of {of}"))
    except UserError as error:
        sys.exit(f"Error: {error}")
    print_report(report, Console())


if __name__ == "__main__":
    _main()
