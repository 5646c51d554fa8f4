"""The model card of a bundle: network, training data, results and limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rvos_edge.atomic import new_file
from rvos_edge.bundle import Bundle
from rvos_edge.errors import UserError
from rvos_edge.manifest import Manifest
from rvos_edge.trainer.card import training_history
from rvos_edge.trainer.evaluate.tables import ResultTable, as_markdown, folds_table, learning_table, result_tables


def write_card(bundle: Path, results: Mapping[str, Any], card: Mapping[str, Any]) -> Path:
    """Write README.md into a bundle; the manifest does not hash it and stays valid.

    A ``folds.json`` and a ``learning.json`` in the folder, as ``benchmarks.folds`` writes them, become tables: of the
    folds, and of queries that learn. A ``tables.json`` holds further ones: ``title``, ``heads``, ``rows`` of texts, and
    ``note``. Sentences under ``failures`` of the card become a list.

    Raises:
        UserError: The bundle is damaged or its folder cannot be written.
    """
    manifest = Bundle.open(bundle).manifest
    parts = [_network(manifest), _training(manifest, card), _results(results), _limits(manifest, results, card)]
    for name, table in (("learning.json", learning_table), ("folds.json", folds_table)):
        if (bundle / name).is_file():
            parts.insert(3, as_markdown(table(json.loads((bundle / name).read_text(encoding="utf-8")))))
    if (bundle / "tables.json").is_file():
        tables = json.loads((bundle / "tables.json").read_text(encoding="utf-8"))
        parts[-1:-1] = [as_markdown(ResultTable(**table)) for table in tables]
    if "failures" in card:
        lines = "\n".join(f"- {failure}" for failure in card["failures"])
        parts.insert(-1, f"## Failures that were looked at\n\n{lines}\n")
    page = bundle / "README.md"
    try:
        with new_file(page) as temporary:
            temporary.write_text("\n".join(parts), encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write {page} ({error.strerror}); make the bundle's folder writable.") from error
    return page


def _network(manifest: Manifest) -> str:
    height, width = manifest.size
    megabytes = sum(graph.weight_bytes for graph in manifest.graphs.values()) / 1e6
    flow = manifest.flow
    lines = [
        f"# {manifest.name}",
        "",
        "Referring video object segmentation: a mask of what a sentence names, on every frame of a video. This folder",
        "is a bundle: open it with `rvos_edge.open(path)`.",
        "",
        f"- preset `{manifest.preset}`, network "
        + ", ".join(f"{key} {value}" for key, value in sorted(manifest.network.items()) if key != "image"),
        f"- frames are resized to {width} x {height}; {megabytes:.1f} MB of weights in {len(manifest.graphs)} graphs",
        f"- optical flow: {flow.iterations} iterations at 1/{flow.scale} of that size" if flow else "- no optical flow",
        f"- checkpoint `{manifest.checkpoint_sha256[:16]}`",
    ]
    lines += [
        f"- {proof.backend}: masks agree with PyTorch's at IoU {proof.mask_iou:.4f} over {proof.frames} frames "
        f"({proof.source})"
        for proof in manifest.proofs.values()
        if proof.mask_iou is not None
    ]
    return "\n".join([*lines, ""])


def _part(card: Mapping[str, Any]) -> str:
    if "averaged" in card:
        return f"- then the mean of {card['averaged']} of these runs' checkpoints"
    kinds: dict[str, float] = {}
    for source in card.get("data", ()):
        kinds[source["name"]] = kinds.get(source["name"], 0.0) + source["share"]
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in kinds.items())
    planned = card.get("planned", card.get("config", {}).get("iterations"))
    early = f", stopped early (of {planned})" if card.get("interrupted") and planned else ""
    size = (card.get("config", {}).get("data") or {}).get("size")
    extent = f" of {size[0]}x{size[1]}" if size else ""
    if "presence" in card:
        return f"- then the presence head, alone: {card['samples']} frames{extent}: {shares}"
    return f"- {card['iterations']} iterations of {card.get('batch', '?')} frames{extent}{early}: {shares}"


def _training(manifest: Manifest, card: Mapping[str, Any]) -> str:
    lines = ["## Training", ""]
    lines += [_part(part) for part in training_history(card)]
    if lines[-1] == "":
        lines.append("- not recorded in this bundle")
    licences = list(dict.fromkeys([*manifest.licences, *card.get("licences", ())]))
    if licences:
        lines += ["", "Licences of the data and of the initial weights:", "", *(f"- {licence}" for licence in licences)]
    return "\n".join([*lines, ""])


def _results(results: Mapping[str, Any]) -> str:
    parts = ["## Results", "", *map(as_markdown, result_tables(results))]
    parts += ["Made with", "", f"    {results['command']}", ""] if "command" in results else []
    return "\n".join(parts)


def _saw_held_out(part: Mapping[str, Any]) -> bool:
    """True if a run was trained on the held-out COCO images: with split "all", or before there were splits."""
    sources = (part.get("config", {}).get("data") or {}).get("sources", ())
    return any(source["kind"] in ("coco", "composed") and source.get("split") != "train" for source in sources)


def _saw_all_davis(part: Mapping[str, Any]) -> bool:
    """True if a run was trained on every DAVIS-2016 video that it had."""
    sources = (part.get("config", {}).get("data") or {}).get("sources", ())
    return any(source["kind"] in ("davis", "davis16") and source.get("videos") == "all" for source in sources)


def _limits(manifest: Manifest, results: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    lines = [
        "## Limits",
        "",
        "- English expressions about what is visible; the only memory is the motion since the previous frame.",
        f"- Frames are read at {manifest.size[1]} x {manifest.size[0]}: small objects and thin parts get lost.",
    ]
    if manifest.flow is not None:
        lines.append("- There is no motion on the first frame and after a scene cut.")
    if "coco" in results.get("swap", {}) and any(map(_saw_held_out, training_history(card))):
        lines.append("- It was trained on all COCO images, those of the swap test included.")
    if "davis16" in results and any(map(_saw_all_davis, training_history(card))):
        lines.append("- It was trained on all DAVIS-2016 training videos: those of the table are not new to it.")
    if any("NC" in licence for licence in [*manifest.licences, *card.get("licences", ())]):
        lines.append("- Some of the training data are for non-commercial use: train on your own data for products.")
    lines.append("- Not a safety component: masks may be wrong, also where the score is high.")
    return "\n".join([*lines, ""])
