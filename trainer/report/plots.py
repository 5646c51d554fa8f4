"""The paper's figures, drawn from recorded runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.trainer.data.readers.base import AnnotatedClips
from rvos_edge.trainer.metrics import combine_objects
from rvos_edge.trainer.report.choose import (
    STILL_PIXELS,
    Example,
    Frames,
    evenly,
    most_changed,
    rows_of_queries,
    still_stretches,
)
from rvos_edge.trainer.report.curves import LOSS, VALIDATION, draw_curves, read_curves
from rvos_edge.trainer.report.grid import Cell, GridRow, draw_grid, paint
from rvos_edge.trainer.report.record import Recording
from rvos_edge.trainer.report.runs import ReportRun

_ABLATION_GAINS = 3
_EFFECT_ROWS = 2
_STILL_VIDEOS = 4
_QUERY_ROWS = 3
_SHEETS, _SHEET_VIDEOS = 8, 4
"""Figs. 4 to 11, and videos of one of them where the eight hold all."""
_TRUTH = 2


@dataclass(frozen=True)
class Figure:
    """A figure of the page: title, rule by which its frames are chosen, names of its PNGs and PDFs with descriptions
    (none where it is left out), and notes about what is missing.
    """

    title: str
    rule: str
    files: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()


def ablation(folder: Path, recordings: Sequence[Recording], clips: AnnotatedClips, frames: Frames) -> Figure:
    """Fig. 1: image, ground truth and every run, with J below."""
    title = "Fig. 1. Ablation"
    if len(recordings) < 2:
        return Figure(title, "", notes=["Left out: it compares two runs or more; give --run for each."])
    first, last = recordings[0], recordings[-1]
    rule = (
        f"Of each video the frame and query where {last.run.name} gains most in J over {first.run.name}: the "
        f"{_ABLATION_GAINS} videos with the largest gains; last, the frame of all videos where it loses most. First "
        "frames, which have no flow, are passed over. J, in %, stands below each mask."
    )
    if frames.named:
        rule, examples = (
            "The frames that were asked for. J, in %, stands below each mask.",
            frames.examples(last, clips),
        )
    else:
        examples = most_changed(last, first, gains=_ABLATION_GAINS, losses=1)
    if not examples:
        return Figure(title, rule, notes=["Left out: no frame but the first of each video is scored."])
    rows = [
        GridRow([*_given(clips, example), *(_prediction(clips, example, recording) for recording in recordings)],
                _caption(clips, example))
        for example in examples
    ]  # fmt: skip
    draw_grid(folder / "ablation.png", rows, ["image", "truth", *(recording.run.name for recording in recordings)])
    return Figure(title, rule, [("ablation", "Image, truth and the masks of each run.")])


def effect_of_flow(folder: Path, recordings: Sequence[Recording], clips: AnnotatedClips) -> Figure:
    """Fig. 2: frames where flow helps and where it harms, with the motion image."""
    title = "Fig. 2. Effect of flow"
    pair = _flow_pair(recordings)
    if pair is None:
        return _left_out(title)
    static, full = pair
    rule = (
        f"Of each video the frame and query where {full.run.name} changes J most against {static.run.name}: the "
        f"{_EFFECT_ROWS} videos with the largest gains (positive), then the {_EFFECT_ROWS} with the largest losses "
        "(negative). The magnitude is the network's input: that of the flow after subtracting its mean, white at three "
        "times the mean magnitude."
    )
    examples = most_changed(full, static, gains=_EFFECT_ROWS, losses=_EFFECT_ROWS)
    groups = {"positive": [e for e in examples if e.change > 0], "negative": [e for e in examples if e.change < 0]}
    notes = [f"There is no {name} example." for name, found in groups.items() if not found]
    rows = []
    for name, found in groups.items():
        for example in found:
            masks = (_prediction(clips, example, recording) for recording in (static, full))
            cells = [*_given(clips, example), *masks, _magnitude(full, clips, example.video, example.index)]
            rows.append(GridRow(cells, _caption(clips, example), heading="" if example is not found[0] else name))
    if not rows:
        return Figure(title, rule, notes=["Left out: flow changes J on no frame."])
    heads = ["image", "truth", f"without flow: {static.run.name}", f"with flow: {full.run.name}", "magnitude"]
    draw_grid(folder / "effect-of-flow.png", rows, heads)
    return Figure(title, rule, [("effect-of-flow", "Image, truth, masks without and with flow, magnitude.")], notes)


def static_objects(folder: Path, recordings: Sequence[Recording], clips: AnnotatedClips, frames: Frames) -> Figure:
    """Fig. 3: still objects over time, without flow and with it."""
    title = "Fig. 3. Static objects"
    pair = _flow_pair(recordings)
    if pair is None:
        return _left_out(title)
    static, full = pair
    rule = (
        f"An object is still on a frame where its mean motion after the camera's is below {STILL_PIXELS:g} pixels of "
        "the network's input; the camera's motion is an affine field fitted to the flow outside all objects. Of each "
        f"video the longest stretch on which an object is still throughout, of the {_STILL_VIDEOS} longest stretches "
        "evenly spaced frames; J, in %, plays no part in the choice."
    )
    stretches = still_stretches(full, least=frames.count)
    if not stretches:
        return Figure(title, rule, notes=["Left out: no object is still for as many frames as are shown."])
    rows: list[GridRow] = []
    for stretch in stretches[:_STILL_VIDEOS]:
        chosen = [Example(stretch.video, index, stretch.query) for index in evenly(stretch.frames, frames.count)]
        shown = f"still for {len(stretch.frames)} scored frames, motion {stretch.motion:.2f} px"
        names = {f"static: {static.run.name}": static, f"full: {full.run.name}": full}
        for label, recording in names.items():
            cells = [_prediction(clips, example, recording) for example in chosen]
            first = not rows or rows[-1].label == "magnitude"
            rows.append(GridRow(cells, f"{_caption(clips, chosen[0])}, {shown}" if first else "", label=label))
        cells = [_magnitude(full, clips, example.video, example.index) for example in chosen]
        rows.append(GridRow(cells, label="magnitude"))
    pairs = [
        (static.videos[s.video].j(index, s.query), full.videos[s.video].j(index, s.query))
        for s in stretches
        for index in s.frames
    ]
    without, with_flow = np.nanmean(pairs, axis=0)
    notes = [
        f"On all frames of these stretches ({len(pairs)} in {len(stretches)} videos) J is {_percent(with_flow)} with "
        f"flow and {_percent(without)} without."
    ]
    draw_grid(folder / "static-objects.png", rows)
    return Figure(title, rule, [("static-objects", "Masks of the static and the full model, and magnitude.")], notes)


def sheets(folder: Path, recordings: Sequence[Recording], clips: AnnotatedClips, frames: Frames) -> Figure:
    """Figs. 4 to 11: sheets of videos with their queries, segmented by every run."""
    title = "Figs. 4 to 11. Queries and their masks"
    videos = list(recordings[0].videos)
    rule = (
        f"{'Frames that were asked for' if frames.named else f'{frames.count} evenly spaced frames'} of each video. "
        "Each object has its colour. Queries about one object stand below each other; those about several objects "
        "share a picture, in which a higher id overrides a lower one. J, in %: of the video behind the query, of the "
        "frame below the picture."
    )
    chosen = {video: _frames_of(recordings[0], clips, video, frames) for video in videos}
    videos = [video for video in videos if chosen[video]]
    count = min(_SHEETS, math.ceil(len(videos) / _SHEET_VIDEOS))
    files = []
    for number, places in enumerate(np.array_split(np.arange(len(videos)), count) if count else (), start=4):
        on_sheet = [videos[place] for place in places]
        rows: list[GridRow] = []
        for video in on_sheet:
            rows += _video_rows(recordings, clips, video, chosen[video], _QUERY_ROWS if len(videos) <= _SHEETS else 1)
        name = f"queries-{number:02d}"
        draw_grid(folder / f"{name}.png", rows)
        files.append((name, f"Fig. {number}. {', '.join(on_sheet)}."))
    return Figure(title, rule, files)


def loss_curves(folder: Path, runs: Sequence[ReportRun]) -> Figure:
    """Loss and validation curves of the runs whose checkpoints have TensorBoard events beside them."""
    title = "Loss curves"
    curves = {
        run.name: {
            tag: points
            for tag, points in read_curves(run.path.parent).items()
            if tag == LOSS or tag.startswith(VALIDATION)
        }
        for run in runs
        if not run.is_bundle
    }
    curves = {name: found for name, found in curves.items() if any(len(points) > 1 for points in found.values())}
    if not curves:
        return Figure(title, "", notes=["Left out: there are no TensorBoard events beside the checkpoints."])
    rule = (
        "The training loss as logged, thin, and its mean over a tenth of the run around each point, thick; below, what "
        "was measured in validation. Losses of runs with different loss terms cannot be compared with each other."
    )
    draw_curves(folder / "curves.png", curves)
    absent = [run.name for run in runs if not run.is_bundle and run.name not in curves]
    notes = [f"No events beside the checkpoint of {', '.join(absent)}."] if absent else []
    return Figure(title, rule, [("curves", "Training loss, and validation, against iterations.")], notes)


def _flow_pair(recordings: Sequence[Recording]) -> tuple[Recording, Recording] | None:
    """The first run without flow, rather a hierarchical one, and the first with flow, rather in both places."""
    static = [recording for recording in recordings if recording.run.flow == "none"]
    full = [recording for recording in recordings if any(video.has_motion for video in recording.videos.values())]
    static.sort(key=lambda recording: recording.run.fusion != "hierarchical")
    full.sort(key=lambda recording: recording.run.flow != "both")
    return (static[0], full[0]) if static and full else None


def _left_out(title: str) -> Figure:
    note = "Left out: it compares a checkpoint without flow (model.flow=none) with one with flow; give --run for both."
    return Figure(title, "", notes=[note])


def _frames_of(recording: Recording, clips: AnnotatedClips, video: str, frames: Frames) -> list[int]:
    if not frames.named:
        return evenly(recording.videos[video].frames, frames.count)
    return sorted({example.index for example in frames.examples(recording, clips) if example.video == video})


def _video_rows(
    recordings: Sequence[Recording], clips: AnnotatedClips, video: str, frames: Sequence[int], most: int
) -> list[GridRow]:
    """Rows of a video: for each group of queries that share a picture one per run."""
    queries, names = clips.queries(video), clips.frames(video)
    ids = sorted({query.object_id or 0 for query in queries})
    rows = []
    for together in rows_of_queries(queries, most=most):
        colours = [ids.index(queries[query].object_id or 0) for query in together]
        captions = []
        for query, colour in zip(together, colours, strict=True):
            scores = " / ".join(_percent(recording.videos[video].mean_j(query)) for recording in recordings)
            captions.append((f"{_quote(queries[query].expression)}: J {scores}", colour))
        for recording in recordings:
            recorded = recording.videos[video]
            cells = []
            for index in frames:
                masks = np.stack([recorded.mask(index, query) for query in together])
                if len(together) > 1:
                    # The standard rule of DAVIS-17, with numbers from 1 in the order of the ids.
                    taken = combine_objects(masks, [colour + 1 for colour in colours])
                    masks = np.stack([taken == colour + 1 for colour in colours])
                score = float(np.nanmean([recorded.j(index, query) for query in together]))
                cells.append(
                    Cell(paint(clips.image(video, index), masks, colours), f"{names[index]}: J {_percent(score)}")
                )
            first = recording is recordings[0]
            rows.append(
                GridRow(
                    cells,
                    heading=video if first and together[0] == 0 else "",
                    captions=captions if first else (),
                    label=recording.run.name if len(recordings) > 1 else "",
                )
            )
    return rows


def _given(clips: AnnotatedClips, example: Example) -> tuple[Cell, Cell]:
    image, truth = (clips.image(example.video, example.index), clips.masks(example.video, example.index))
    assert truth is not None, "only annotated frames are scored"
    return Cell(image), Cell(paint(image, truth[[example.query]], [_TRUTH]))


def _prediction(clips: AnnotatedClips, example: Example, recording: Recording) -> Cell:
    recorded = recording.videos[example.video]
    mask = recorded.mask(example.index, example.query)[None]
    picture = paint(clips.image(example.video, example.index), mask, [0])
    return Cell(picture, f"J {_percent(recorded.j(example.index, example.query))}")


def _magnitude(full: Recording, clips: AnnotatedClips, video: str, index: int) -> Cell:
    motion = full.videos[video].motion_image(index)
    height, width = clips.image(video, index).shape[:2]
    blank: NDArray[np.uint8] = np.zeros((height, width), np.uint8)
    seen = blank if motion is None else cv2.resize(motion, (width, height), interpolation=cv2.INTER_LINEAR)
    return Cell(np.asarray(seen, np.uint8), clips.frames(video)[index])


def _caption(clips: AnnotatedClips, example: Example) -> str:
    query = clips.queries(example.video)[example.query].expression
    frame = clips.frames(example.video)[example.index]
    changed = f", J {100 * example.change:+.1f}" if example.change else ""
    return f"{example.video} {frame}: {_quote(query)}{changed}"


def _quote(text: str) -> str:
    return f"\N{LEFT DOUBLE QUOTATION MARK}{text}\N{RIGHT DOUBLE QUOTATION MARK}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
