"""Evaluation of a checkpoint or a bundle: video and image benchmarks, synthetic scenes and the swap test."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from rvos_edge import __version__
from rvos_edge.atomic import write_output
from rvos_edge.errors import UserError
from rvos_edge.manifest import parse_size
from rvos_edge.outputs import check_inputs, check_outputs
from rvos_edge.progress import progress_bar
from rvos_edge.streaming.ledger import Ledger
from rvos_edge.trainer.card import card_facts
from rvos_edge.trainer.data.datasets import DATASETS, open_clips
from rvos_edge.trainer.evaluate.attributes import attribute_table, find_attributes
from rvos_edge.trainer.evaluate.masks import MaskFolder
from rvos_edge.trainer.evaluate.model import PresencePredictor, model_hash, open_predictor
from rvos_edge.trainer.evaluate.model_card import write_card
from rvos_edge.trainer.evaluate.pairs import read_pairs
from rvos_edge.trainer.evaluate.scorers import Metrics
from rvos_edge.trainer.evaluate.swap import evaluate_swap
from rvos_edge.trainer.evaluate.synthetic import evaluate_synthetic
from rvos_edge.trainer.evaluate.tables import show
from rvos_edge.trainer.evaluate.video import PROTOCOLS, Rules, evaluate_clips
from rvos_edge.trainer.evaluate.words import evaluate_taught_words, evaluate_words

_NAMES = (*DATASETS, "synthetic", "swap", "words", "all")


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Options of an evaluation; the fields are the options of the command line.

    Attributes:
        bundle: Bundle directory; exactly one of the two is given.
        backend: Backend of the bundle (``engines.registry.BACKENDS``); by default the one of every machine.
        dataset: A name of ``DATASETS``, synthetic, swap, words, or all: davis16, synthetic, swap and, with ``words``,
            words.
        root: Folder of the data set; for swap and all that of DAVIS-16.
        coco: Folder of COCO for the swap test; without it only synthetic scenes are used.
        people: Folder of people with instances as COCO's and garments per pixel in ``labels``, for the swap test among
            several of one kind; without it that part is left out.
        words: Folder with instances as COCO's, for single words on its held-out pictures.
        size: HxW of the network's input, for a bundle one that it has; "original" evaluates a checkpoint at each
            frame's own size, rounded up to what the network takes.
        split: A split of the data set, or names of videos separated by commas; by default ``DATASETS[dataset].split``.
        expressions: File of the expressions; the data set's own by default. JSON in the format of Refer-YouTube-VOS.
        every: Score every n-th frame (J and F); all frames are run.
        teach: Number of annotated frames, evenly spread, with which each object's query is taught; the others are
            scored. For words, the number of pictures of each held-out word. Bundles only.
        adapt: "once" or "on" lets queries adapt to their own masks, as the runtime does; bundles only.
        json: File of the results. During the evaluation the results of finished videos lie beside it, in
            NAME.partial.jsonl.
    """

    checkpoint: Path | None = None
    bundle: Path | None = None
    backend: str = "onnxruntime"
    dataset: str
    root: Path | None = None
    coco: Path | None = None
    people: Path | None = None
    words: Path | None = None
    size: str | None = None
    split: str | None = None
    expressions: Path | None = None
    every: int = 1
    protocol: str = "every-frame"
    pairs: Path | None = None
    teach: int = 0
    adapt: str = "off"
    masks: Path | None = None
    json: Path | None = None
    resume: bool = True
    card: bool = False


def evaluate(options: EvalOptions, *, console: Console | None = None) -> dict[str, Any]:
    """Evaluate a checkpoint or a bundle, print tables, and write the results; returns them by data set, JSON-able.

    Raises:
        UserError: Options contradict each other, a file is missing, or ``json`` belongs to an interrupted evaluation
            with other options.
    """
    _check(options)
    console = console or Console()
    ledger = Ledger(_partial_file(options.json), _facts(options), resume=options.resume)
    if len(ledger):
        console.print(f"going on with {ledger.path}: {len(ledger)} parts are done")
    folder = options.checkpoint or options.bundle or Path()
    results: dict[str, Any] = {"model": folder.resolve().name, "command": _command(options)}
    try:
        with open_predictor(
            options.checkpoint, options.bundle, backend=options.backend, adapt=options.adapt, size=_size(options)
        ) as predictor:
            results |= _run(options, predictor, ledger, console)
    except KeyboardInterrupt:
        if ledger.path is not None and len(ledger):
            console.print(f"interrupted: {len(ledger)} parts are kept in {ledger.path}; the same command goes on")
        raise
    show(results, console)
    if options.json is not None:
        write_output(options.json, json.dumps(results, indent=2) + "\n")
        console.print(f"results: {options.json}")
    ledger.remove()
    if options.masks is not None:
        console.print(f"masks: {options.masks}")
    if options.card and options.bundle is not None:
        console.print(f"card: {write_card(options.bundle, results, card_facts(options.bundle))}")
    return results


def _run(options: EvalOptions, predictor: PresencePredictor, ledger: Ledger, console: Console) -> dict[str, Any]:
    results: dict[str, Any] = {}
    dataset = "davis16" if options.dataset == "all" else options.dataset
    masks = None if options.masks is None else MaskFolder(options.masks)
    with progress_bar(console) as progress:
        if dataset in DATASETS and options.root is not None:
            clips = open_clips(dataset, options.root, options.split, options.expressions)
            pairs = None if options.pairs is None else read_pairs(options.pairs)
            rules = Rules(options.every, options.protocol, masks, options.teach, pairs)
            result = evaluate_clips(predictor, clips, dataset, rules=rules, ledger=ledger, progress=progress)
            results[dataset] = {"split": options.split or DATASETS[dataset].split, **result}
            info = find_attributes(options.root) if dataset == "davis16" else None
            if info is not None:
                regions = {video: row["j"] for video, row in result["videos"].items()}
                results[dataset]["attributes"] = attribute_table(info, regions)
        for name in ("synthetic", "swap", "words"):
            if options.dataset not in (name, "all") or (name == "words" and options.words is None):
                continue
            row = ledger.get(name, "")
            if row is None:
                row = ledger.put(name, "", _run_generated(name, options, predictor, progress))
            results[name] = row
    return results


def _run_generated(name: str, options: EvalOptions, predictor: PresencePredictor, progress: Any) -> Metrics:
    if name == "synthetic":
        return evaluate_synthetic(predictor, progress=progress)
    if name == "words" and options.words is not None and options.teach:
        return evaluate_taught_words(predictor, options.words, options.teach, progress=progress)
    if name == "words" and options.words is not None:
        return evaluate_words(predictor, options.words, progress=progress)
    return evaluate_swap(
        predictor,
        options.coco,
        options.root,
        people=options.people,
        expressions=options.expressions,
        progress=progress,
    )


def _size(options: EvalOptions) -> tuple[int, int] | Literal["original"] | None:
    if options.size is None:
        return None
    return "original" if options.size == "original" else parse_size(options.size)


def _check(options: EvalOptions) -> None:
    if (options.checkpoint is None) == (options.bundle is None):
        raise UserError("Give either --checkpoint or --bundle.")
    if options.dataset not in _NAMES:
        raise UserError(f"Unknown --dataset '{options.dataset}'; choose one of {', '.join(_NAMES)}.")
    if options.card and options.bundle is None:
        raise UserError("--card describes a bundle; export the checkpoint and give --bundle instead of --checkpoint.")
    if options.dataset in (*DATASETS, "all") and options.root is None:
        raise UserError(f"--dataset {options.dataset} needs --root, the folder that you unpacked the data set to.")
    if options.masks is not None and options.dataset not in DATASETS:
        raise UserError(f"--masks keeps the masks of one data set of videos; leave it out for {options.dataset}.")
    if options.protocol not in PROTOCOLS:
        raise UserError(f"Unknown --protocol '{options.protocol}'; choose one of {', '.join(PROTOCOLS)}.")
    if options.checkpoint is not None and (options.teach or options.adapt != "off"):
        raise UserError("--teach and --adapt are the runtime's; export the checkpoint and give --bundle.")
    if options.teach and options.dataset not in (*DATASETS, "words"):
        raise UserError(
            f"--teach shows frames of one data set of videos, or words; leave it out for {options.dataset}."
        )
    if options.teach and options.card:
        raise UserError("--card tells what sentences find; leave --teach out.")
    if options.every < 1:
        raise UserError(f"--every must be at least 1, not {options.every}: it scores every n-th frame.")
    if options.dataset == "words" and options.words is None:
        raise UserError("--dataset words needs --words, a folder with instances as COCO's.")
    if options.people is not None and options.coco is None:
        raise UserError("--people needs --coco, whose pictures are the backgrounds.")
    folders = {"--root": options.root, "--coco": options.coco, "--people": options.people, "--words": options.words}
    for option, folder in folders.items():
        if folder is not None and not folder.is_dir():
            raise UserError(f"{option} {folder} does not exist; give the folder you unpacked the data set to.")
    if options.expressions is not None and not options.expressions.exists():
        raise UserError(f"--expressions {options.expressions} does not exist; give the file of the sentences.")
    if options.json is not None and options.json.is_dir():
        raise UserError(f"--json {options.json} is a folder; give a file name.")
    _size(options)
    inputs = (options.checkpoint, options.bundle, *folders.values(), options.expressions)
    check_outputs([options.json], inputs)
    check_inputs([options.masks] if options.masks is not None else [], inputs)


def _partial_file(path: Path | None) -> Path | None:
    return None if path is None else path.with_name(f"{path.stem}.partial.jsonl")


def _facts(options: EvalOptions) -> dict[str, Any]:
    """Facts that must be unchanged for an interrupted evaluation to continue: model, options and expressions."""
    facts: dict[str, Any] = {"model": model_hash(options.checkpoint, options.bundle), "version": __version__}
    for name in ("backend", "dataset", "size", "split", "every", "protocol", "teach", "adapt"):
        facts[name] = getattr(options, name)
    for name in ("root", "coco", "people", "words", "masks", "expressions", "pairs"):
        path = getattr(options, name)
        facts[name] = None if path is None else str(path.resolve())
    if options.expressions is not None and options.expressions.is_file():
        facts["expressions"] += " " + hashlib.sha256(options.expressions.read_bytes()).hexdigest()
    return facts


def _command(options: EvalOptions) -> str:
    """The command line that repeats the evaluation; folders by their names alone."""
    words = ["rvos-edge eval", f"--dataset {options.dataset}"]
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in ("dataset", "masks", "json", "resume", "card") or value in (None, field.default):
            continue
        words.append(f"--{field.name} {value.resolve().name if isinstance(value, Path) else value}")
    return " ".join(words)
