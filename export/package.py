"""Export of a checkpoint as a bundle: graphs, storage of weights, parity proofs, manifest."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import onnx
from rich.console import Console
from torch import Tensor

from rvos_edge.atomic import new_directory
from rvos_edge.bundle import Bundle, sha256_of
from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend
from rvos_edge.errors import UserError
from rvos_edge.export.graphs import STATES, ExportGraph, build_graphs
from rvos_edge.export.int8 import Clip, quantise, read_clips
from rvos_edge.export.onnx import IMAGE_RULE, MAX_QUERIES, count_flops, describe, export_onnx, specs
from rvos_edge.export.precision import Precision, arithmetic, narrowed, wired
from rvos_edge.export.reference import QUERIES, at_size, prove_in_pytorch, read_clip, record, run_once
from rvos_edge.export.teach import traced, with_teach
from rvos_edge.export.weights import Storage, storage_of, store_weights, weight_bytes
from rvos_edge.manifest import (
    FORMAT_VERSION,
    TEXT_GRAPH,
    FlowSpec,
    GraphSpec,
    Manifest,
    Proof,
    ReferenceSpec,
    TextSpec,
    format_size,
    frame_flops,
)
from rvos_edge.outputs import check_outputs, names_path
from rvos_edge.parity.record import FILE as REFERENCE_FILE
from rvos_edge.parity.record import Reference
from rvos_edge.parity.verify import check, prove
from rvos_edge.progress import follow
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import IMAGENET_MEAN, IMAGENET_STD, Boundary
from rvos_edge.trainer.model.weights import InitialWeights
from rvos_edge.trainer.predictor import check_size
from rvos_edge.trainer.tasks.from_parts import assemble

_PROOF_FRAMES = 4


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        sizes: Heights and widths of the input, the default size first; the checkpoint's size when empty.
        calibrate: Frames on which convolutions are put into eight bits (``export.int8``); None for none.
        queries: Queries about these frames.
        source: Video or image folder for the proof; the synthetic camera by default.
        teach: Add the graph with which queries learn on the device (``export.teach``); tracing it takes a minute.
    """

    sizes: Sequence[tuple[int, int]] = ()
    precision: Precision = "float32"
    weights: Storage | None = None
    calibrate: Path | None = None
    queries: Sequence[str] = ()
    max_queries: int = 64
    source: Path | None = None
    preset: str | None = None
    fuse: bool = False
    flow_scale: int | None = None
    boundary: Boundary | None = None
    teach: bool = False


def export_bundle(
    checkpoint: Path, output: Path, options: ExportOptions | None = None, *, console: Console | None = None
) -> Path:
    """Export a checkpoint as a bundle; nothing is left behind unless every graph passes its proof.

    Raises:
        UserError: An option is out of range, or a graph cannot be exported or is out of tolerance.
    """
    console = console or Console(stderr=True)
    options = options or ExportOptions()
    if not 1 <= options.max_queries <= MAX_QUERIES:
        raise UserError(f"--max-queries {options.max_queries} is out of range; choose between 1 and {MAX_QUERIES}.")
    check_outputs([output], [checkpoint, options.source, options.calibrate])
    clips = read_clips(options.calibrate, options.queries or QUERIES) if options.calibrate is not None else []
    loaded = load_checkpoint(checkpoint, preset=options.preset)
    if options.flow_scale is not None:
        _set_flow_scale(loaded, options.flow_scale)
    if options.boundary is not None:
        loaded.model.set_boundary(options.boundary)
    sizes = list(dict.fromkeys(options.sizes)) or [loaded.model.config.size]
    for size in sizes:
        check_size(size, loaded.model)
    small = options.calibrate is not None
    storage = storage_of(weights=options.weights, precision=options.precision, small=small)

    with names_path(output), new_directory(output) as temporary:
        (temporary / "tokenizer.json").write_text(loaded.tokenizer.to_str(), encoding="utf-8")
        (temporary / "card.json").write_text(json.dumps(loaded.card, indent=2) + "\n", encoding="utf-8")
        exporter = _Exporter(loaded, checkpoint, temporary, options, storage, clips, console)
        first = exporter.export(sizes[0])
        others: dict[str, dict[str, GraphSpec]] = {}
        for size in sizes[1:]:
            graphs = exporter.export(size, like=first).graphs
            others[format_size(size)] = {name: spec for name, spec in graphs.items() if name != TEXT_GRAPH}
        manifest = first.model_copy(update={"sizes": others})
        (temporary / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        for size in sizes:
            Bundle.open(temporary, size=size)
    return output


def export_preset(preset: str, weights: Mapping[str, Path], output: Path, options: ExportOptions) -> Path:
    """Export an untrained network of a preset, with official weights of its parts where given (``InitialWeights``).

    Raises:
        UserError: As for ``export_bundle``, or weights do not fit.
    """
    given = InitialWeights.model_validate({name: str(path) for name, path in weights.items()})
    with tempfile.TemporaryDirectory(prefix="rvos-edge-") as folder:
        checkpoint = Path(folder) / preset
        save_checkpoint(checkpoint, assemble(preset, given))
        return export_bundle(checkpoint, output, options)


@dataclass(frozen=True)
class _Exporter:
    loaded: Checkpoint
    checkpoint: Path
    root: Path
    options: ExportOptions
    storage: dict[str, Storage]
    clips: Sequence[Clip]
    console: Console

    def export(self, size: tuple[int, int], *, like: Manifest | None = None) -> Manifest:
        """Export and prove the graphs of one size, with the text graph of ``like``; returns the manifest of a bundle of
        that size alone.
        """
        precision = self.options.precision
        if self.clips and self.options.source is None:  # eight bits fit such frames and not the synthetic camera's
            assert self.options.calibrate is not None
            seen = self.clips[2]  # of those that choose nothing
            clip = at_size(seen.frames, size, self.options.calibrate.name, tuple(seen.queries))
        else:
            clip = read_clip(self.options.source, size, _PROOF_FRAMES)
        clip = replace(clip, queries=clip.queries[: self.options.max_queries])
        wide = build_graphs(self.loaded.model, fuse=self.options.fuse)
        reference = record(wide, self.loaded, clip)
        narrow = build_graphs(narrowed(self.loaded.model, precision), fuse=self.options.fuse)
        written: dict[str, GraphSpec] = {}
        todo = list(zip(narrow, wide, strict=True))
        if like is not None:
            written[TEXT_GRAPH] = like.graphs[TEXT_GRAPH]
            todo = [pair for pair in todo if pair[0].name != TEXT_GRAPH]
            (self.root / format_size(size)).mkdir()
        folder = "" if like is None else f"{format_size(size)}/"
        for graph, plain in follow(todo, f"export {format_size(size)}", self.console):
            inputs, outputs = (
                wired(names, tensors, precision)
                for names, tensors in zip((graph.inputs, graph.outputs), run_once(plain, reference), strict=True)
            )
            written[graph.name] = self._write(graph, plain, inputs, outputs, f"{folder}{graph.name}.onnx")
        if self.options.teach:
            graph, reference = with_teach(self.loaded.model, size, reference)
            inputs, outputs = run_once(graph, reference)
            written[graph.name] = self._write(
                traced(graph, inputs), graph, inputs, outputs, f"{folder}{graph.name}.onnx"
            )
        kept = None
        if like is None:
            reference.save(self.root / REFERENCE_FILE)
            kept = ReferenceSpec(file=REFERENCE_FILE, sha256=sha256_of(self.root / REFERENCE_FILE))
        manifest = _manifest(self.loaded, self.checkpoint, written, self.root, size, self.options)
        quantised: dict[str, Proof] = {}
        if self.options.calibrate is not None:
            found = quantise(Bundle(self.root, manifest), self.clips, self.options.calibrate.name, self.console)
            quantised = {"int8": found.proof}
            for name, model in found.graphs.items():
                written[name] = self._narrowed(written[name], name, model)
            manifest = manifest.model_copy(update={"graphs": written})
        proofs = self._prove(Bundle(self.root, manifest), narrow, reference)
        return manifest.model_copy(update={"proofs": {**proofs, **quantised}, "reference": kept})

    def _narrowed(self, spec: GraphSpec, name: str, model: onnx.ModelProto) -> GraphSpec:
        """Write a quantised graph in place of the one before."""
        self._save(model, name, spec.file, self.storage[name])
        changes = {"sha256": sha256_of(self.root / spec.file), "weight_bytes": weight_bytes(model)}
        return spec.model_copy(update={**changes, "precision": "int8", "weights": "int8"})

    def _save(self, model: onnx.ModelProto, name: str, file: str, storage: Storage) -> None:
        # Four bits move the answers to like sentences apart from PyTorch's (IoU .96): where eight are asked for alone.
        store_weights(model, storage, small_tables=self.options.calibrate is not None)
        describe(model, name, self._facts())
        onnx.save(model, str(self.root / file))

    def _facts(self) -> dict[str, str]:
        """Metadata of the ONNX files."""
        card, config = self.loaded.card, self.loaded.model.config
        licences = "; ".join(_licences(self.loaded)) or "not stated"
        return {"name": str(card.get("name", config.preset)), "preset": config.preset, "licence": licences}

    def _prove(self, bundle: Bundle, graphs: Sequence[ExportGraph], reference: Reference) -> dict[str, Proof]:
        proofs = {"onnxruntime": prove(bundle, reference, lambda: OnnxRuntimeBackend(device="cpu"))}
        if self.options.precision == "float16":
            proofs["pytorch"] = prove_in_pytorch(graphs, reference)
        for proof in proofs.values():
            check(bundle, proof)
        return proofs

    def _write(
        self, graph: ExportGraph, plain: ExportGraph, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], file: str
    ) -> GraphSpec:
        storage = self.storage[graph.name]
        model = export_onnx(graph, inputs, self.root / file)
        self._save(model, graph.name, file, storage)
        return GraphSpec(
            file=file,
            sha256=sha256_of(self.root / file),
            inputs=specs(graph, graph.inputs, inputs),
            outputs=specs(graph, graph.outputs, outputs),
            precision=arithmetic(graph.name, self.options.precision),
            weights=storage,
            flops=count_flops(plain, [tensor.float() if tensor.is_floating_point() else tensor for tensor in inputs]),
            weight_bytes=weight_bytes(model),
        )


def _manifest(
    loaded: Checkpoint,
    path: Path,
    graphs: dict[str, GraphSpec],
    folder: Path,
    size: tuple[int, int],
    options: ExportOptions,
) -> Manifest:
    config = loaded.model.config
    flow = None
    if loaded.model.flow is not None:
        flow = FlowSpec(iterations=loaded.model.flow.iterations, scale=loaded.model.flow.scale)
    return Manifest(
        format_version=FORMAT_VERSION,
        name=str(loaded.card.get("name", config.preset)),
        preset=config.preset,
        trained=bool(loaded.card.get("trained", True)),
        network={
            "backbone": config.backbone.name,
            "backbone_stride": config.backbone.stride,
            "fusion": config.fusion,
            "flow": config.flow,
            "attention_heads": config.attention_heads,
            "boundary": config.boundary,
            "presence": config.presence,
            "channels": list(config.channels),
            "parameters": sum(parameter.numel() for parameter in loaded.model.parameters()),
            "image": IMAGE_RULE,
            "frame_flops": frame_flops(graphs, flow.iterations if flow else 0),
        },
        size=size,
        stride=loaded.model.stride,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        text=TextSpec(sha256=sha256_of(folder / "tokenizer.json"), max_tokens=config.text.max_tokens),
        flow=flow,
        graphs=graphs,
        states=STATES if flow else {},
        max_queries=options.max_queries,
        tools={name: version(name) for name in ("torch", "torchvision", "onnx", "onnxruntime", "transformers")},
        checkpoint=path.name,
        checkpoint_sha256=sha256_of(path / "model.safetensors"),
        network_id=network_id(loaded.model),
        licences=_licences(loaded),
    )


def _licences(loaded: Checkpoint) -> tuple[str, ...]:
    """Licences of the training data, as the card has them."""
    return tuple(loaded.card.get("config", {}).get("data", {}).get("licences", ()))


def network_id(model: HINet) -> str:
    """Hash of a network's weights, independent of the file and type they are exported to.

    Batch norms' counts of batches are left out, as no output depends on them.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(f"{name} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _set_flow_scale(loaded: Checkpoint, scale: int) -> None:
    try:
        loaded.model.set_flow_scale(scale)
    except ValueError as error:
        raise UserError(f"--flow-scale {scale}: {error}; leave the option out.") from error
