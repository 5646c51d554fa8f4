"""The model card of a bundle: network, training data, results and limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rvos_edge.atomic import new_file
from rvos_edge.bundle import Bundle, Manifest
from rvos_edge.errors import UserError

CARD_FILE = "card.json"
"""File of a checkpoint's training facts; the export copies it beside the manifest."""
_PAGE = "README.md"


def card_facts(path: Path) -> dict[str, Any]:
    """Training facts in a checkpoint's or bundle's directory; empty where there are none.

    Raises:
        UserError: The file is damaged.
    """
    file = path / CARD_FILE
    if not file.is_file():
        return {}
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{file} is not readable JSON; copy card.json from the checkpoint again.") from error
    if not isinstance(facts, dict):
        raise UserError(f"{file} does not hold the facts of a training run; copy it from the checkpoint again.")
    return facts


def write_card(bundle: Path, results: Mapping[str, Any], card: Mapping[str, Any]) -> Path:
    """Write README.md into a bundle; the manifest does not hash it and stays valid.

    Raises:
        UserError: The bundle is damaged or its folder cannot be written.
    """
    manifest = Bundle.open(bundle).manifest
    parts = [_network(manifest), _training(manifest, card), _results(results), _limits(manifest, results, card)]
    page = bundle / _PAGE
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
        + ", ".join(f"{key} {value}" for key, value in sorted(manifest.network.items())),
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


def training_history(*cards: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The runs and averages that led to checkpoints, in order, each once.

    Of several snapshots of a run only the latest is kept; cards of untrained networks are left out.
    """
    parts: list[Mapping[str, Any]] = []
    for card in cards:
        own = {key: value for key, value in card.items() if key != "history"}
        told = {"iterations", "averaged", "samples"}
        trained = [part for part in (*card.get("history", ()), own) if told & set(part)]
        parts += [part for part in trained if part not in parts]
    return [part for part in parts if not any(_is_later(other, part) for other in parts)]


def _is_later(card: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True if a card is that of a later iteration of the same run."""
    one, two = ({k: v for k, v in part.items() if k not in ("iterations", "interrupted")} for part in (card, other))
    return one == two and card.get("iterations", 0) > other.get("iterations", 0)


def _part(card: Mapping[str, Any]) -> str:
    if "averaged" in card:
        shift = card.get("margin_shift")
        if card["averaged"] == 1 and shift:
            return f"- then the margin shifted by {shift:+g}"
        moved = f", the margin shifted by {shift:+g}" if shift else ""
        return f"- then the mean of {card['averaged']} of these runs' checkpoints{moved}"
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
    if "samples" in card:
        frames = f"{card['batch']} out of {card['samples']} frames{extent}"
        return f"- then a prior that has since been left out: {card['iterations']} iterations of {frames}: {shares}"
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
    lines = ["## Results", ""]
    davis = results.get("davis16")
    if davis is not None:
        lines += [
            f"DAVIS-16 at 480p, split `{davis['split']}`, {_scored(davis)}, mean over each video's expressions.",
            "*Other*: mask of an expression about another video, its J with this video's object and its share of the",
            "image; low values are good.",
            "",
            "| video | J | F | other, J | other, share of the image |",
            "|---|---:|---:|---:|---:|",
        ]
        for video, row in davis["videos"].items():
            other = row.get("shuffled", {"j": None, "foreground": None})
            lines.append(_row(video, row["j"], row["f"], other["j"], other["foreground"]))
        lines += [_row("**mean**", davis["j"], davis["f"], davis["shuffled_j"], davis["shuffled_foreground"]), ""]
        fall = None if None in (davis["j"], davis["shuffled_j"]) else davis["j"] - davis["shuffled_j"]
        lines += [
            f"With another video's expression J falls by {_percent(fall)} points; expressions that surely name nothing",
            f"in a video cover {_percent(davis['absent_foreground'])} % of the image.",
            "",
        ]
    table = []
    synthetic = results.get("synthetic")
    if synthetic is not None:
        scenes = f"{synthetic['scenes']} held-out synthetic scenes, {synthetic['frames']} frames each"
        table += [f"| J, {scenes} | {_percent(synthetic['j'])} |"]
        empty = "empty masks of absent expressions (below 0.5 % of the image), same scenes"
        table += [f"| {empty} | {_percent(synthetic['absent_empty'])} |"]
    if table:
        lines += ["| | % |", "|---|---:|", *table, ""]
    if "swap" in results:
        lines += [
            "Swap test, pairs of expressions about two objects of one frame, %. *Both*: share of pairs in which both",
            "masks select their own object. *Each*: share of single expressions that do. *Absent*: share of the image",
            "covered by masks of expressions about nothing in it.",
            "",
            "| frames | both | each | absent |",
            "|---|---:|---:|---:|",
        ]
        for source, row in results["swap"].items():
            name = f"{_SOURCES.get(source, source)}: {row['pairs']} pairs"
            lines.append(_row(name, row["share"], row["named_wins"], row["absent_foreground"]))
        lines.append("")
    if "words" in results:
        lines += _words(results["words"])
    if "command" in results:
        lines += ["Made with", "", f"    {results['command']}", ""]
    return "\n".join(lines)


def _words(figures: Mapping[str, Any]) -> list[str]:
    """Single words on held-out pictures, and how far ``presence`` holds there."""
    lines = [
        "Single nouns on pictures that were kept from training, %: J of the mask of everything that is called so;",
        "*presence* is `presence` against what is there and what surely is not: area under the ROC curve, expected",
        "calibration error, and shares of true and of absent words that are called present (above 0.5).",
        "",
        "| words | J | presence: AUC | calibration error | true ones found | absent ones found |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, what in (("seen", "that training says"), ("held_out", "that the last training never says")):
        row = figures[name]
        said = row.get("presence", {})
        cells = (said.get(key) for key in ("auc", "ece", "found", "false"))
        lines.append(_row(f"{what}: {row['words']} there, {row['absent']} not", row["j"], *cells))
    pairs = figures["pairs"]
    if pairs["pairs"]:
        both, named = _percent(pairs["share"]), _percent(pairs["named_wins"])
        lines += [
            "",
            f"Of {pairs['pairs']} pairs in one picture both keep to their own in {both} %, the named one wins",
        ]
        lines.append(f"in {named} %.")
    return [*lines, ""]


_SOURCES = {
    "synthetic": "held-out synthetic scenes",
    "composed": "COCO objects pasted into other frames, held-out pictures",
    "coco": "held-out COCO images",
    "overall": "all",
}


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


def _scored(davis: Mapping[str, Any]) -> str:
    every = davis["every"]
    return "every frame" if every == 1 else f"one frame in {every}"


def _row(name: str, *values: float | None) -> str:
    return f"| {name} | " + " | ".join(_percent(value) for value in values) + " |"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}".replace("-0.0", "0.0")
