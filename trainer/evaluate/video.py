"""Evaluation on the videos of a data set, scored by its benchmark's rules at the size of the annotations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from rvos_edge.errors import UserError
from rvos_edge.queries import read_queries
from rvos_edge.streaming.ledger import Ledger
from rvos_edge.trainer.data.datasets import DATASETS
from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.readers.base import AnnotatedClips, Query
from rvos_edge.trainer.data.readers.davis16 import SCENERY
from rvos_edge.trainer.evaluate.masks import MaskFolder, VideoMasks
from rvos_edge.trainer.evaluate.model import Predictor, PredictorQuery
from rvos_edge.trainer.evaluate.pairs import Pair
from rvos_edge.trainer.evaluate.scorers import (
    Metrics,
    ObjectsScorer,
    OverlapScorer,
    RegionScorer,
    Scorer,
    expression_sets,
    mean,
    object_totals,
    overlap_totals,
    region_totals,
)

PROTOCOLS = ("every-frame", "semi-supervised", "unsupervised")
Watch = Callable[[str, int, Sequence[int], NDArray[np.bool_], NDArray[np.bool_]], None]
"""Sees every scored frame: video, index, numbers of the queries, their ground truth and masks, bool [n,H,W] each."""
_LEAD = 3
"""Frames that are run before each scored one where few are annotated: flow needs one, its warm start more."""


@dataclass(frozen=True)
class Rules:
    """Frames that are scored, and masks that are kept.

    Attributes:
        protocol: "every-frame": each expression against its own object, on every frame. "semi-supervised", as in
            DAVIS' official code: without the first and last frame of each video. "unsupervised", as in DAVIS-2017's
            official code: on every frame, objects matched to answers (Hungarian, by the mean of J and F over the
            video), whatever the expressions say. Void pixels of davis17 (255) count in none of the three.
        pairs: (Index of the frame, object id or None for any) by video: only these are scored, those with an empty
            truth too (``read_pairs``). None scores every annotated frame that shows the object.
        teach: Number of annotated frames, evenly spread, with which each object's query is taught; they are not scored.
    """

    every: int = 1
    protocol: str = "every-frame"
    masks: MaskFolder | None = None
    teach: int = 0
    pairs: Mapping[str, frozenset[Pair]] | None = None


def evaluate_clips(
    predictor: Predictor,
    clips: AnnotatedClips,
    dataset: str,
    *,
    rules: Rules | None = None,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Metrics:
    """Score every video of a data set, with as many of its queries in one pass as memory allows.

    Args:
        ledger: Results of finished videos, which are not run again; new results are added.

    Returns:
        The data set's totals and the results of its ``videos``. davis16: ``DAVIS_METRICS``, averaged over a video's
        expressions and then over videos; also the response to an expression of the next video, whose J against this
        video's object (``shuffled_j``) and share of the image (``absent_foreground``, where the expression surely names
        nothing here) should be near zero. youtube-vos, mevis: ``DAVIS_METRICS`` over all expressions. davis17:
        ``DAVIS_METRICS`` over all objects, ``standard`` and ``binary``, averaged over the ``sets`` of expressions. a2d,
        jhmdb, refcoco: ``overall_iou``, ``mean_iou``, ``precision@0.5`` ... over all pairs of expression and annotated
        frame.

    Raises:
        UserError: A file is missing or damaged, or an option does not apply to the data set.
    """
    rules = rules or Rules()
    ledger = Ledger(None, {}) if ledger is None else ledger
    _check(rules, DATASETS[dataset].measure)
    queries = {video: clips.queries(video) for video in clips.videos if clips.queries(video)}
    if rules.pairs is not None:
        queries = {video: asked for video, asked in queries.items() if rules.pairs.get(video)}
        if not queries:
            raise UserError(f"{clips.root} has none of the videos that --pairs lists; give the list of this data set.")
    sets = expression_sets(queries) if DATASETS[dataset].measure == "objects" else {}
    shuffled = _shuffled(queries) if dataset == "davis16" else {}
    if rules.masks is None and not any(clips.annotated(video) for video in queries):
        raise UserError(
            f"{clips.root}: this split has no annotations to score against; give --masks DIR to keep the masks."
        )
    bar = progress or Progress(disable=True)
    task = bar.add_task(dataset, total=len(queries))
    rows: dict[str, Metrics] = {}
    for done, (video, of_video) in enumerate(queries.items(), start=1):
        row = ledger.get(dataset, video)
        if row is None:
            scorer: Scorer
            if DATASETS[dataset].measure == "region":
                scorer = _region_scorer(video, of_video, shuffled.get(video))
            elif DATASETS[dataset].measure == "objects":
                scorer = ObjectsScorer(sets[video], matched=rules.protocol == "unsupervised")
            else:
                scorer = OverlapScorer(of_video)
            for share in _score(predictor, clips, video, scorer, rules, shuffled.get(video), watch):
                bar.update(task, completed=done - 1 + share)
            row = ledger.put(dataset, video, scorer.row())
        rows[video] = row
        bar.update(task, completed=done)
    how = {"protocol": rules.protocol, "every": rules.every, **({"teach": rules.teach} if rules.teach else {})}
    return {**_totals(dataset, rows), **how, "videos": _brief(rows)}


def _score(
    predictor: Predictor,
    clips: AnnotatedClips,
    video: str,
    scorer: Scorer,
    rules: Rules,
    shuffled: str | None,
    watch: Watch | None,
) -> Iterator[float]:
    """Run a video through the predictor and the scorer; yields the share that is done."""
    queries, names = clips.queries(video), clips.frames(video)
    sparse = isinstance(scorer, OverlapScorer)
    scored = _scored(clips.annotated(video), len(names), rules)
    void = getattr(clips, "void", None) if isinstance(scorer, ObjectsScorer) else None
    listed = None if rules.pairs is None else rules.pairs[video]
    if listed is not None:
        scored &= {index for index, _ in listed}
    runs = _runs(scored) if sparse else [range(len(names))]
    named = {number: query.expression for number, query in enumerate(queries) if query.expression.startswith("@")}
    taught = dict(zip(named, read_queries(list(named.values())), strict=True))
    if rules.teach:
        # Where enough frames are not scored anyway, these: then the same frames are scored as without teaching.
        spare = [index for index in clips.annotated(video) if index not in scored]
        shown = _spread(spare if len(spare) >= rules.teach else clips.annotated(video), rules.teach)
        taught |= _teach(predictor, clips, video, queries, shown)
        scored -= set(shown)
    total, done = len(scorer.passes) * sum(map(len, runs)), 0
    with contextlib.nullcontext() if rules.masks is None else rules.masks.video(video) as kept:
        for number, chosen in enumerate(scorer.passes):
            sentences: list[PredictorQuery] = [
                taught.get(i, queries[i].expression) if i < len(queries) else str(shuffled) for i in chosen
            ]
            different = list(dict.fromkeys(sentences))
            places = [different.index(sentence) for sentence in sentences]
            predictor.set_queries(different)
            for run in runs:
                predictor.reset()
                for index in run:
                    predicted = predictor.masks(clips.image(video, index))[places]
                    if index in scored:
                        truth = _truth(clips, video, index, chosen)
                        answers = predicted if void is None else predicted & ~void(video, index)
                        if watch is not None:
                            own = sum(number < len(queries) for number in chosen)  # without the shuffled one
                            watch(video, index, chosen[:own], truth[:own], answers[:own])
                        if listed is not None and isinstance(scorer, OverlapScorer):
                            wanted = [bool({(index, queries[i].object_id), (index, None)} & listed) for i in chosen]
                            scorer.count(truth[wanted], answers[wanted])
                        else:
                            scorer.add(number, truth, answers)
                    if kept is not None and (index in scored or not sparse):
                        _keep(kept, scorer, number, names[index], queries, predicted)
                    done += 1
                    yield done / total


def _spread(annotated: Sequence[int], count: int) -> list[int]:
    """``count`` of the annotated frames, evenly spread; all when there are fewer."""
    places = ((np.arange(count) + 0.5) * len(annotated) / count).astype(int)
    return sorted({annotated[place] for place in places})


def _teach(
    predictor: Predictor, clips: AnnotatedClips, video: str, queries: Sequence[Query], shown: Sequence[int]
) -> dict[int, PredictorQuery]:
    """Taught queries by the index of the query they replace; all objects are taught with the same frames.

    An object that is in none of the frames keeps its sentence.
    """
    frames = [clips.image(video, index) for index in shown]
    before = [clips.image(video, index - 1) if index else None for index in shown]
    taught: dict[int, PredictorQuery] = {}
    for number, query in enumerate(queries):
        masks = [_truth(clips, video, index, [number])[0] for index in shown]
        if any(mask.any() for mask in masks):
            taught[number] = predictor.teach(frames, masks, before, query.expression)
    return taught


def _check(rules: Rules, measure: str) -> None:
    if rules.teach < 0:
        raise UserError(f"--teach must not be negative, got {rules.teach}: it is a number of frames per object.")
    if rules.every < 1:
        raise UserError(f"--every must be at least 1, not {rules.every}: it scores every n-th frame.")
    if rules.protocol not in PROTOCOLS:
        raise UserError(f"Unknown --protocol '{rules.protocol}'; choose one of {', '.join(PROTOCOLS)}.")
    if rules.protocol == "unsupervised" and measure != "objects":
        raise UserError("--protocol unsupervised matches answers to objects, which davis17 alone has; leave it out.")
    if rules.pairs is not None and measure != "overlap":
        raise UserError("--pairs lists what a2d and jhmdb score; leave it out here.")
    if measure == "overlap" and rules != Rules(masks=rules.masks, pairs=rules.pairs):
        raise UserError("--every and --protocol are for J and F (davis16, davis17, youtube-vos); leave them out here.")


def _scored(annotated: Sequence[int], count: int, rules: Rules) -> set[int]:
    ends = {0, count - 1} if rules.protocol == "semi-supervised" else set()
    return {index for index in annotated if index % rules.every == 0 and index not in ends}


def _runs(scored: set[int]) -> list[range]:
    """Ranges of frames to run, ascending: every scored frame and the ``_LEAD`` frames before it."""
    runs: list[range] = []
    for index in sorted(scored):
        start = max(index - _LEAD, 0)
        if runs and start <= runs[-1].stop:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(start, index + 1))
    return runs


def _truth(clips: AnnotatedClips, video: str, index: int, chosen: Sequence[int]) -> NDArray[np.bool_]:
    masks = clips.masks(video, index)
    if masks is None:
        raise UserError(f"{clips.root}: frame {index} of {video} has lost its annotation; put it back.")
    # The shuffled expression is compared with the first query's object.
    return masks[[number if number < len(masks) else 0 for number in chosen]]


def _keep(
    kept: VideoMasks, scorer: Scorer, number: int, frame: str, queries: Sequence[Query], predicted: NDArray[np.bool_]
) -> None:
    for query, mask in zip(scorer.passes[number], predicted, strict=True):
        if query < len(queries):
            kept.write(queries[query].key, frame, mask)
    if isinstance(scorer, ObjectsScorer):
        for name, ids in scorer.combined(number, predicted).items():
            kept.write_objects(name, frame, ids)


def _shuffled(queries: Mapping[str, Sequence[Query]]) -> dict[str, str]:
    """For each video an expression of the next video: the first one that it does not share."""
    videos = list(queries)
    out = {}
    for video, following in zip(videos, (*videos[1:], *videos[:1]), strict=True):
        own = {query.expression for query in queries[video]}
        others = [query.expression for query in queries[following] if query.expression not in own]
        if others:
            out[video] = others[0]
    return out


def _region_scorer(video: str, queries: Sequence[Query], shuffled: str | None) -> RegionScorer:
    if shuffled is None:
        return RegionScorer(queries)
    own = [query.expression for query in queries]
    present = SCENERY.get(video, frozenset()).union(*(vocabulary.concepts(sentence) for sentence in own))
    return RegionScorer(queries, shuffled=shuffled, absent=vocabulary.surely_absent(shuffled, present, own))


def _totals(dataset: str, rows: Mapping[str, Metrics]) -> Metrics:
    if DATASETS[dataset].measure == "overlap":
        return overlap_totals(rows)
    if DATASETS[dataset].measure == "objects":
        return object_totals(rows)
    return region_totals(rows, by_video=dataset == "davis16")


def _brief(rows: Mapping[str, Metrics]) -> dict[str, Metrics]:
    """Rows for display: pairs, which may be thousands, are replaced by their number and mean."""
    return {
        video: {"pairs": len(row["pairs"]), "mean_iou": mean(i / u for i, u in row["pairs"])} if "pairs" in row else row
        for video, row in rows.items()
    }
