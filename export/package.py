"""A checkpoint to a bundle: export, narrow the weights, prove parity, write the manifest, move into place."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import onnx
from rich.console import Console
from rich.progress import track
from torch import Tensor

from rvos_edge.atomic import new_directory
from rvos_edge.bundle import (
    FORMAT_VERSION,
    Bundle,
    EndToEnd,
    FlowSpec,
    GraphSpec,
    Manifest,
    Parity,
    TextSpec,
    sha256_of,
)
from rvos_edge.errors import UserError
from rvos_edge.export.graphs import STATES, Graph, build_graphs
from rvos_edge.export.onnx import count_flops, export_onnx, specs
from rvos_edge.export.precision import WEIGHT_STORAGE, Storage, store_weights, weight_bytes
from rvos_edge.export.verify import Reference, check_parity, measure_end_to_end, measure_parity, real_frames
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint
from rvos_edge.trainer.model.presets import IMAGENET_MEAN, IMAGENET_STD

_PARITY_FRAMES = 3
_END_TO_END_FRAMES = 10
_UNMEASURED = Parity(max_abs=float("inf"), relative_l2=float("inf"))


def export_bundle(
    checkpoint: Path,
    output: Path,
    *,
    size: tuple[int, int] | None = None,
    frames: Path | None = None,
    weights: Storage | None = None,
    preset: str | None = None,
    console: Console | None = None,
) -> Path:
    """Export a checkpoint as a bundle; nothing is left behind unless every graph is proven.

    Args:
        checkpoint: Directory that training wrote.
        output: The bundle's directory; an older bundle there is replaced at the end.
        size: Height and width of the input, multiples of 32; the checkpoint's by default.
        frames: Video or image folder for the parity measurement; the synthetic camera by default.
        weights: How all weights are stored; ``WEIGHT_STORAGE`` by default.
        preset: The preset that the checkpoint must be of, if any.
        console: Where progress is shown.

    Returns:
        ``output``.

    Raises:
        UserError: Bad input, a graph that cannot be exported, or one out of tolerance.
    """
    console = console or Console(stderr=True)
    loaded = load_checkpoint(checkpoint, preset=preset)
    config = loaded.model.config
    size = size or config.size
    _check_size(size)
    if output.exists() and not (output / "manifest.json").is_file():
        raise UserError(f"{output} exists and is not a bundle; choose another --output.")
    images, source = real_frames(frames, size, _END_TO_END_FRAMES)

    graphs = build_graphs(loaded.model)
    storage: dict[str, Storage] = {graph.name: weights or WEIGHT_STORAGE[graph.name] for graph in graphs}
    reference = Reference(graphs, loaded)
    with new_directory(output) as temporary:
        examples = {graph.name: (inputs, outputs) for graph, inputs, outputs in reference.frames(images[:2])}
        written: dict[str, GraphSpec] = {}
        for graph in track(graphs, description="export", console=console, disable=not console.is_terminal):
            written[graph.name] = _write(graph, *examples[graph.name], temporary, storage[graph.name])
        loaded.tokenizer.save(str(temporary / "tokenizer.json"))
        (temporary / "card.json").write_text(json.dumps(loaded.card, indent=2) + "\n", encoding="utf-8")

        files = {name: temporary / spec.file for name, spec in written.items()}
        parity = measure_parity(reference, images[:_PARITY_FRAMES], files)
        check_parity(parity, storage)
        written = {name: spec.model_copy(update={"parity": parity[name]}) for name, spec in written.items()}

        manifest = _manifest(loaded, checkpoint, written, temporary, size, end_to_end=None)
        _write_manifest(manifest, temporary)
        end_to_end = measure_end_to_end(temporary, loaded, images, source, size)
        _write_manifest(manifest.model_copy(update={"end_to_end": end_to_end}), temporary)
        Bundle.open(temporary)
    return output


def _write(
    graph: Graph, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], folder: Path, storage: Storage
) -> GraphSpec:
    file = f"{graph.name}.onnx"
    model = export_onnx(graph, inputs, folder / file)
    store_weights(model, storage)
    onnx.save(model, str(folder / file))
    return GraphSpec(
        file=file,
        sha256=sha256_of(folder / file),
        inputs=specs(graph, graph.inputs, inputs),
        outputs=specs(graph, graph.outputs, outputs),
        weights=storage,
        flops=count_flops(graph, inputs),
        weight_bytes=weight_bytes(model),
        parity=_UNMEASURED,
    )


def _manifest(
    loaded: Checkpoint,
    path: Path,
    graphs: dict[str, GraphSpec],
    folder: Path,
    size: tuple[int, int],
    *,
    end_to_end: EndToEnd | None,
) -> Manifest:
    config = loaded.model.config
    flow = None
    if loaded.model.flow is not None:
        flow = FlowSpec(iterations=loaded.model.flow.iterations, scale=loaded.model.flow.scale)
    return Manifest(
        format_version=FORMAT_VERSION,
        name=str(loaded.card.get("name", config.preset)),
        preset=config.preset,
        network={
            "backbone": config.backbone.name,
            "backbone_stride": config.backbone.stride,
            "fusion": config.fusion,
            "flow": config.flow,
            "channels": list(config.channels),
            "parameters": sum(parameter.numel() for parameter in loaded.model.parameters()),
            "frame_flops": _frame_flops(graphs, flow.iterations if flow else 0),
        },
        size=size,
        stride=loaded.model.stride,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        text=TextSpec(sha256=sha256_of(folder / "tokenizer.json"), max_tokens=config.text.max_tokens),
        flow=flow,
        graphs=graphs,
        states=STATES if flow else {},
        end_to_end=end_to_end,
        tools={name: version(name) for name in ("torch", "torchvision", "onnx", "onnxruntime", "transformers")},
        checkpoint=path.name,
        checkpoint_sha256=sha256_of(path / "model.safetensors"),
        licences=tuple(loaded.card.get("config", {}).get("data", {}).get("licences", ())),
    )


def _frame_flops(graphs: dict[str, GraphSpec], iterations: int) -> int:
    """FLOPs of one frame with flow and one query."""
    runs = {"text": 0, "flow_step": iterations}
    return sum(spec.flops * runs.get(name, 1) for name, spec in graphs.items())


def _write_manifest(manifest: Manifest, folder: Path) -> None:
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _check_size(size: tuple[int, int]) -> None:
    if any(extent < 32 or extent % 32 for extent in size):
        raise UserError(f"--size {size[0]}x{size[1]}: both must be multiples of 32, for example 288x512.")
