"""The contents of a bundle as tables or as JSON, for ``rvos-edge inspect``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rvos_edge.bundle import Bundle
from rvos_edge.engines.tensorrt.engine_cache import EngineCache, Entry
from rvos_edge.manifest import Manifest, Proof, TensorSpec, format_size, frame_flops, read_manifest
from rvos_edge.parity.verify import TF32, tolerance

_SHORT = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "uint8": "u8", "int8": "i8", "int64": "i64"}


def as_json(bundle: Bundle) -> str:
    """Return the manifest, fingerprint, engines and file sizes as one JSON document."""
    document: dict[str, Any] = bundle.manifest.model_dump(mode="json")
    files = {name: (bundle.path / spec.file).stat().st_size for name, spec in bundle.manifest.graphs.items()}
    engines = [entry.key.model_dump(mode="json") for _, entry in EngineCache(bundle).entries()]
    more = {"fingerprint": bundle.fingerprint, "file_bytes": files, "engines": engines}
    return json.dumps({**document, **more}, indent=2)


def print_bundle(bundle: Bundle, console: Console) -> None:
    """Print facts, graphs, proofs and engines."""
    manifest = bundle.manifest
    console.print(escape(_facts(bundle.path, manifest)), soft_wrap=True)
    console.print(_graphs(manifest))
    for name, proof in manifest.proofs.items():
        console.print(proof_table(manifest, name, proof))
    engines = list(EngineCache(bundle).entries())
    if engines:
        console.print(_engines(bundle, engines))


def proof_table(manifest: Manifest, name: str, proof: Proof) -> Table:
    """Build a table of a proof and its tolerances."""
    caption = "" if proof.mask_iou is None else f"mask IoU {proof.mask_iou:.4f} over {proof.frames} frames: "
    caption += proof.source + (f"; {proof.note}" if proof.note else "")
    table = Table(title=escape(f"{name}: {proof.backend}"), caption=escape(caption), title_justify="left")
    table.add_column("graph", no_wrap=True)
    for column in ("in", "weights"):
        table.add_column(column)
    for column in ("max abs", "relative L2", "allowed", "cosine"):
        table.add_column(column, justify="right")
    for graph, parity in proof.graphs.items():
        spec = manifest.graphs.get(graph)
        if spec is None:
            continue  # a proof of a graph that is not in the bundle proves nothing
        limit = tolerance(spec, tf32=proof.note == TF32)
        colour = "green" if parity.relative_l2 <= limit else "red"
        table.add_row(
            graph,
            spec.precision,
            spec.weights,
            f"{parity.max_abs:.1e}",
            f"[{colour}]{parity.relative_l2:.1e}[/]",
            f"{limit:.1e}",
            f"{parity.cosine:.6f}",
        )
    return table


def _facts(path: Path, manifest: Manifest) -> str:
    flow = manifest.flow
    sizes = ", ".join([format_size(manifest.size), *manifest.sizes])
    lines = [
        f"{path}: {manifest.name}, preset {manifest.preset}, format {manifest.format_version}"
        + ("" if manifest.trained else "; not trained, its masks mean nothing"),
        f"input {sizes} uint8 BGR, masks at 1/{manifest.stride}"
        + (", aligned with the edges of the image" if manifest.network.get("boundary") == "guided" else "")
        + f", up to {manifest.max_queries} queries",
        f"flow: {flow.iterations} iterations at 1/{flow.scale} of the input" if flow else "no flow",
    ]
    return "\n".join(lines)


def _graphs(manifest: Manifest) -> Table:
    table = Table(show_footer=True, caption="GFLOP of one run; last line: of a frame with one query")
    for column in ("graph", "writes", "in", "stored"):
        table.add_column(column, no_wrap=True)
    specs = manifest.graphs.values()
    frame = frame_flops(manifest.graphs, manifest.flow.iterations if manifest.flow else 0)
    table.add_column("GFLOP", justify="right", footer=f"{frame / 1e9:.2f}")
    table.add_column("MB", justify="right", footer=f"{sum(spec.weight_bytes for spec in specs) / 1e6:.1f}")
    for name, spec in manifest.graphs.items():
        costs = f"{spec.flops / 1e9:.2f}", f"{spec.weight_bytes / 1e6:.1f}"
        table.add_row(name, _tensors(spec.outputs), _SHORT[spec.precision], _SHORT[spec.weights], *costs)
    return table


def _engines(bundle: Bundle, engines: Iterable[tuple[Path, Entry]]) -> Table:
    table = Table(title="engines", title_justify="left")
    for column in ("graph", "made by", "for", "queries", "in", "MB", ""):
        table.add_column(column, justify="right" if column == "MB" else "left")
    manifest = read_manifest(bundle.path)
    current = {spec.sha256 for graphs in (manifest.graphs, *manifest.sizes.values()) for spec in graphs.values()}
    for folder, entry in engines:
        key = entry.key
        stale = "" if key.onnx_sha256 in current else "of another graph file"
        place = " ".join([key.gpu, "+".join(key.capabilities)]).strip()
        size = f"{(folder / f'{key.graph}.engine').stat().st_size / 1e6:.1f}"
        made_by = f"{key.flavour} {key.version}"
        table.add_row(key.graph, made_by, place, f"1..{key.max_queries}", key.precision, size, stale)
    return table


def _tensors(specs: Iterable[TensorSpec]) -> str:
    return "\n".join(escape(f"{s.name} {_SHORT[s.dtype]} {'x'.join(map(str, s.shape))}") for s in specs)
