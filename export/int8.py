"""Convolutions in eight bits: calibrated on frames, and held to the masks of the same graphs without them.

The result is explicit quantisation as TensorRT, OpenVINO and ONNX Runtime read it: QuantizeLinear and DequantizeLinear
before a convolution and at its weights, symmetric, with one scale per output channel of a weight. ``precision.POLICY``
says which graphs and layers may take part; none does that reads a concatenation. Layers that cost the masks too much
are left out, the dearest first.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import set_default_logger_severity
from onnxruntime.quantization import QDQQuantizer, QuantType, TensorsData, create_calibrator
from rich.console import Console

from rvos_edge.bundle import Bundle
from rvos_edge.engines.base import Graph
from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend, OrtGraph
from rvos_edge.errors import UserError
from rvos_edge.export.precision import POLICY
from rvos_edge.export.weights import widen_weights
from rvos_edge.manifest import GraphSpec, Proof
from rvos_edge.parity.verify import mask_iou
from rvos_edge.progress import follow
from rvos_edge.segmenter import Segmenter
from rvos_edge.streaming.sources import open_source
from rvos_edge.trainer.data.readers.davis16 import Davis16Clips
from rvos_edge.trainer.metrics import region_similarity

LEAST_IOU = 0.98
"""Smallest accepted IoU of the masks with those of the graphs before."""
MOST_J = 0.01
"""Largest accepted fall of J, where true masks are given."""
_AIM = 0.75
"""Share of these allowances that the search for layers may use: the proof is on clips that it has not seen."""
_CLIP, _STRIDE, _CLIPS = 4, 8, 32
"""Frames in a row, distance of their beginnings, and number: ten seconds of a video at 25 frames per second."""
_TRIED = 3
"""Clips on which single layers are tried."""
_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,  # TensorRT adds the bias in the type of the file
    "OpTypesToExcludeOutputQuantization": ["Conv"],  # TensorRT fuses what follows, up to the next quantisation
}

Masks = list[NDArray[np.bool_]]
Layer = tuple[str, str]
"""Graph and node."""


@dataclass(frozen=True)
class Clip:
    """Consecutive frames, uint8 [H,W,3] BGR, queries about them, and their true masks, bool [Q,H,W], where known."""

    frames: Sequence[NDArray[np.uint8]]
    queries: Sequence[str]
    truth: Sequence[NDArray[np.bool_]] = ()


def read_clips(source: Path, queries: Sequence[str]) -> list[Clip]:
    """Read short clips of a video or an image folder, or one of every video of a data set laid out as DAVIS-2016.

    Args:
        queries: Queries about the frames; a data set has its own.

    Raises:
        UserError: The source cannot be read, or gives fewer than three clips.
    """
    clips: list[Clip] = []
    if (source / "JPEGImages").is_dir():
        data = Davis16Clips(source, split="all")
        for video in data.videos:
            middle = len(data.frames(video)) // 2
            indices = range(middle, min(middle + _CLIP, len(data.frames(video))))
            truth = [masks for index in indices if (masks := data.masks(video, index)) is not None]
            sentences = [query.expression for query in data.queries(video)]
            clips.append(Clip([data.image(video, index) for index in indices], sentences[:1], [m[:1] for m in truth]))
    else:
        frames: list[NDArray[np.uint8]] = []
        with open_source(str(source)) as opened:
            for index, frame in enumerate(itertools.islice(opened, _STRIDE * _CLIPS)):
                if index % _STRIDE < _CLIP:
                    frames.append(frame.image.copy())
        clips = [Clip(frames[start : start + _CLIP], queries) for start in range(0, len(frames), _CLIP)]
    if len(clips) < 3:
        raise UserError(f"--calibrate {source} has too few frames; give a video of at least {2 * _STRIDE + 1} frames.")
    return clips


class _Recorded:
    """A graph that keeps what it reads."""

    def __init__(self, graph: OrtGraph, backend: _Laboratory, seen: list[dict[str, NDArray[Any]]]) -> None:
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self._graph, self._backend, self._seen = graph, backend, seen

    def run(self) -> None:
        self._seen.append({tensor.name: self._backend.board.read(tensor.name).copy() for tensor in self.inputs})
        self._graph.run()


class _Laboratory(OnnxRuntimeBackend):
    """ONNX Runtime on the CPU with graphs that are recorded, and others from files in place of the bundle's."""

    recorded: Mapping[str, list[dict[str, NDArray[Any]]]] = {}
    exchanged: Mapping[str, Path] = {}

    def having(self, **changes: Any) -> _Laboratory:
        """A sibling, which shares the bundle's sessions, with other ``recorded`` or ``exchanged`` graphs."""
        other = self.sibling()
        vars(other).update(changes)
        assert isinstance(other, _Laboratory)
        return other

    def load(self, path: Path, spec: GraphSpec) -> Graph:  # type: ignore[override]  # a Graph is all that is used
        graph = super().load(path, spec)
        if path.stem in self.exchanged:
            # A session of its own: it is tried once.
            session = self._start(self.exchanged[path.stem], spec, "cpu")
            graph = OrtGraph(path, session, spec, self.board)
        return _Recorded(graph, self, self.recorded[path.stem]) if path.stem in self.recorded else graph


class _Samples:
    """Inputs of one graph, in the form that onnxruntime's calibrator reads."""

    def __init__(self, samples: Iterable[dict[str, NDArray[Any]]]) -> None:
        self._samples = iter(samples)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._samples, None)


@dataclass(frozen=True)
class Part:
    """A graph, the ranges of its convolutions' inputs, and the names of those that may be quantised."""

    model: onnx.ModelProto
    ranges: TensorsData
    layers: tuple[str, ...]

    def quantised(self, layers: Sequence[str]) -> onnx.ModelProto:
        """The graph with these layers in eight bits."""
        model = copy.deepcopy(self.model)
        if not layers:
            return model
        int8 = QuantType.QInt8
        quantiser = QDQQuantizer(model, True, False, int8, int8, self.ranges, list(layers), [], ["Conv"], _OPTIONS)
        quantiser.quantize_model()
        quantiser.model.topological_sort()
        found: onnx.ModelProto = quantiser.model.model
        return found


@dataclass(frozen=True)
class Outcome:
    """Graphs with layers in eight bits by name, and the proof that their masks are those of before."""

    graphs: dict[str, onnx.ModelProto]
    proof: Proof


def quantise(bundle: Bundle, clips: Sequence[Clip], source: str, console: Console) -> Outcome:
    """Quantise the graphs of a bundle.

    Ranges are those of the first of every three clips, layers are chosen on the second, and masks are proven on the
    third. ``source`` names the clips in the proof.

    Raises:
        UserError: The masks are too far from those of before.
    """
    backend = _Laboratory(device="cpu")
    seen, tried, judged = (clips[start::3] for start in range(3))
    parts = _calibrate(bundle, backend, seen)
    layers: list[Layer] = [(name, layer) for name, part in parts.items() for layer in part.layers]
    with tempfile.TemporaryDirectory(prefix="rvos-edge-") as folder:
        trial = _Trial(bundle, backend, parts, Path(folder))
        search = _Judge(trial, tried)
        kept = layers
        if not search.passes(search.price(kept), share=_AIM):
            few = _Judge(trial, tried[:: max(1, len(tried) // _TRIED)][:_TRIED])
            costs = {layer: few.price([layer])[0] for layer in follow(layers, "int8 layers", console)}
            layers.sort(key=costs.__getitem__)
            # The fewest layers to leave out: ``fails`` of them are too few, ``enough`` are not.
            fails, enough, kept = 0, len(layers), []
            while enough - fails > 1:
                middle = (fails + enough) // 2
                if search.passes(search.price(layers[middle:]), share=_AIM):
                    enough, kept = middle, layers[middle:]
                else:
                    fails = middle
        proven = _Judge(trial, judged)
        iou, j = proven.price(kept)
    if not kept or not proven.passes((iou, j)):
        found = f"agree only to {iou:.3f} IoU" + ("" if j is None else f" and {j - (proven.j or 0):+.3f} J")
        raise UserError(
            f"with {len(kept)} of {len(layers)} layers in eight bits the masks {found} with those of before on "
            f"{source}; calibrate on frames like those that will be seen, with --query about them, or leave --int8 out."
        )
    left_out = [f"{name}/{layer}" for name, layer in layers if (name, layer) not in set(kept)]
    proof = Proof(
        backend="ONNX Runtime (cpu), eight bits against the same graphs without them",
        note=f"{len(kept)} of {len(layers)} layers; left out: {', '.join(left_out) or 'none'}"[:1000],
        graphs={},
        mask_iou=iou,
        frames=sum(len(clip.frames) for clip in judged),
        source=source,
        j=j,
        j_before=proven.j,
    )
    return Outcome({name: parts[name].quantised(mine) for name in parts if (mine := _of(name, kept))}, proof)


@dataclass(frozen=True)
class _Trial:
    """Masks of the bundle with some layers in eight bits."""

    bundle: Bundle
    backend: _Laboratory
    parts: Mapping[str, Part]
    folder: Path

    def masks(self, kept: Sequence[Layer], clips: Sequence[Clip]) -> Masks:
        exchanged = {name: self.folder / f"{name}.onnx" for name in self.parts if _of(name, kept)}
        for name, path in exchanged.items():
            onnx.save(self.parts[name].quantised(_of(name, kept)), str(path))
        return _segment(self.bundle, self.backend.having(exchanged=exchanged), clips)


class _Judge:
    """Clips, and the masks and J of the bundle on them without eight bits."""

    def __init__(self, trial: _Trial, clips: Sequence[Clip]) -> None:
        self._trial, self._clips = trial, clips
        self._expected = _segment(trial.bundle, trial.backend, clips)
        self.j = _region(clips, self._expected)

    def price(self, kept: Sequence[Layer]) -> tuple[float, float | None]:
        """IoU with the masks of before, and J, with these layers in eight bits."""
        found = self._trial.masks(kept, self._clips)
        return mask_iou(found, self._expected), _region(self._clips, found)

    def passes(self, found: tuple[float, float | None], share: float = 1.0) -> bool:
        """Compare with a share of what IoU and J may lose."""
        iou, j = found
        return 1 - iou <= share * (1 - LEAST_IOU) and (j is None or self.j is None or self.j - j <= share * MOST_J)


def _of(graph: str, layers: Iterable[Layer]) -> list[str]:
    return [layer for name, layer in layers if name == graph]


def calibrate(name: str, model: onnx.ModelProto, samples: Iterable[dict[str, NDArray[Any]]]) -> Part:
    """Find the ranges of a graph's convolutions on samples of its inputs; its weights are widened."""
    widen_weights(model)
    set_default_logger_severity(3)  # the calibrator's session warns of what it leaves in its own graph
    with tempfile.TemporaryDirectory(prefix="rvos-edge-") as folder:
        wide, augmented = Path(folder) / "wide.onnx", Path(folder) / "augmented.onnx"
        onnx.save(model, str(wide))
        calibrator = create_calibrator(wide, ["Conv"], str(augmented))
        calibrator.collect_data(_Samples(samples))
        ranges = calibrator.compute_data()
    if any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer):
        model = onnx.version_converter.convert_version(model, 19)  # the first that quantises float16
    weights, left = {tensor.name for tensor in model.graph.initializer}, POLICY[name].int8 or ()
    makers = {output: node for node in model.graph.node for output in node.output}
    layers = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in weights and not node.input[1].startswith(left)
        if not _is_joined(node.input[0], makers)
    ]
    return Part(onnx.shape_inference.infer_shapes(model), ranges, tuple(layers))


def _is_joined(tensor: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """True for a concatenation, also after a ReLU. OpenVINO (2026.4) moves its quantisation to what is concatenated and
    loses the zero points: results are off by a quarter.
    """
    maker = makers.get(tensor)
    if maker is not None and maker.op_type == "Relu":
        maker = makers.get(maker.input[0])
    return maker is not None and maker.op_type == "Concat"


def _calibrate(bundle: Bundle, backend: _Laboratory, clips: Sequence[Clip]) -> dict[str, Part]:
    names = [name for name in bundle.manifest.graphs if POLICY[name].int8 is not None]
    recorded: dict[str, list[dict[str, NDArray[Any]]]] = {name: [] for name in names}
    _segment(bundle, backend.having(recorded=recorded), clips)
    return {name: calibrate(name, onnx.load(str(bundle.graph_path(name))), recorded.pop(name)) for name in names}


def _segment(bundle: Bundle, backend: _Laboratory, clips: Sequence[Clip]) -> Masks:
    """Masks of all frames; every query counts as present."""
    segmenter = Segmenter(bundle=bundle, backend=backend, min_presence=0)
    masks = []
    for clip in clips:
        segmenter.reset()
        segmenter.set_queries(clip.queries)
        masks += [segmenter.step(frame).masks for frame in clip.frames]
    return masks


def _region(clips: Sequence[Clip], masks: Masks) -> float | None:
    """Mean J of the frames; None without true masks."""
    truth = [mask for clip in clips for mask in clip.truth]
    if len(truth) != len(masks):
        return None
    return float(np.mean([region_similarity(true, found) for true, found in zip(truth, masks, strict=True)]))
