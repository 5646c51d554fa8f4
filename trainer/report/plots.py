"""The paper's figures, drawn from recorded runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.streaming.overlay import draw_masks, query_colour
from rvos_edge.trainer.data.readers.base import ReferringClips
from rvos_edge.trainer.report.choose import (
    STILL_PIXELS,
    Example,
    evenly,
    mean_when_still,
    most_changed,
    rows_of_queries,
    stillest,
)
from rvos_edge.trainer.report.curves import draw_losses, read_losses
from rvos_edge.trainer.report.grid import Cell, GridRow, at_drawn_size, draw_grid
from rvos_edge.trainer.report.record import Recording
from rvos_edge.trainer.report.runs import FULL, ROLES, STATIC, ReportRun, Role, differences

_ABLATION_GAINS = 3
_EFFECT_ROWS = 2
_STILL_ROWS = 4
_STRIP_FRAMES = 5
_STRIP_ROWS = 3
_STRIPS = 8
_MOST_DIFFERENCES = 6
_PREDICTION = 0
_TRUTH = 1
"""Numbers of the queries whose colours prediction and ground truth get."""


@dataclass(frozen=True)
class Figure:
    """A figure of the page: title, rule by which its frames are chosen, PNGs with their descriptions (none where it is
    left out), and notes: warnings, missing runs, the reason where it is left out.
    """

    title: str
    rule: str
    files: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()


def ablation(folder: Path, recordings: Sequence[Recording], clips: ReferringClips) -> Figure:
    """Fig. 1: image, ground truth and every variant, with J below."""
    title = "Fig. 1. Ablation"
    present = [(role, of_role(recordings, role)) for role in ROLES]
    columns = [(role, recording) for role, recording in present if recording is not None]
    notes = [_missing([role for role, recording in present if recording is None])] if len(columns) < len(ROLES) else []
    if len(columns) < 2:
        return Figure(title, "", notes=[f"Left out: it compares two variants or more. {notes[0]}"])
    (first, base), (last, better) = columns[0], columns[-1]
    rule = (
        f"Of each video the frame and query where {_quote(last.title)} gains most in J over {_quote(first.title)}: the "
        f"{_ABLATION_GAINS} videos with the largest gains; last, the frame of all videos where it loses most. First "
        "frames, which have no flow, are passed over. J, in %, stands below each mask."
    )
    examples = most_changed(better, base, gains=_ABLATION_GAINS, losses=1)
    notes += _unlike([recording.run for _, recording in columns])
    notes += _one_sided(examples)
    if not examples:
        return Figure(title, rule, notes=notes)
    rows = [
        GridRow(
            _caption(clips, example),
            [*_given(clips, example), *(_prediction(clips, example, recording) for _, recording in columns)],
        )
        for example in examples
    ]
    draw_grid(folder / "ablation.png", rows, ["image", "truth", *(role.title for role, _ in columns)])
    return Figure(title, rule, [("ablation.png", "image, truth and the variants' masks")], notes)


def effect_of_flow(folder: Path, recordings: Sequence[Recording], clips: ReferringClips) -> Figure:
    """Fig. 2: frames where flow helps and where it harms, with the motion image."""
    title = "Fig. 2. Effect of flow, good and bad"
    full, static = of_role(recordings, FULL), of_role(recordings, STATIC)
    if full is None or static is None:
        return _left_out(title, full, static)
    rule = (
        "Of each video the frame and query where flow in both places changes J most against the static model "
        f"(hierarchical, no flow): the {_EFFECT_ROWS} videos with the largest gains, then the {_EFFECT_ROWS} with the "
        "largest losses. The magnitude image is the network's input: the flow's magnitude after subtracting its mean, "
        "white at three times the mean magnitude."
    )
    notes = _unlike([full.run, static.run])
    examples = most_changed(full, static, gains=_EFFECT_ROWS, losses=_EFFECT_ROWS)
    notes += _one_sided(examples)
    return _beside_motion(folder, "effect-of-flow.png", title, rule, notes, examples, full, static, clips)


def static_objects(folder: Path, recordings: Sequence[Recording], clips: ReferringClips) -> Figure:
    """Fig. 3: static objects, with flow and without."""
    title = "Fig. 3. Static objects"
    full, static = of_role(recordings, FULL), of_role(recordings, STATIC)
    if full is None or static is None:
        return _left_out(title, full, static)
    rule = (
        "An object is still where its mean motion against the camera is below that of its surroundings, or below "
        f"{STILL_PIXELS:g} pixels of the network's input. Of each video the frame in which an object is stillest "
        f"(motion inside over outside), the {_STILL_ROWS} stillest videos; J plays no part in the choice."
    )
    notes = _unlike([full.run, static.run])
    mine, others, count = mean_when_still(full, static)
    if count:
        notes.append(
            f"Over all {count} still objects (frames times queries) J is {100 * mine:.1f} with flow and "
            f"{100 * others:.1f} without."
        )
    examples = stillest(full, rows=_STILL_ROWS)
    return _beside_motion(folder, "static-objects.png", title, rule, notes, examples, full, static, clips)


def strips(folder: Path, recordings: Sequence[Recording], clips: ReferringClips) -> Figure:
    """Figs. 4 to 11: frames of a video with its queries as captions, one picture per video."""
    shown = _best_known(recordings)
    title = "Figs. 4 to 11. Queries and their masks"
    rule = (
        f"{_STRIP_FRAMES} evenly spaced frames of each video (of {_STRIPS}, where there are more), segmented by "
        f"{_quote(shown.run.name)} ({shown.run.network}). Each query has its colour. Queries about one object stand "
        f"below each other, the first {_STRIP_ROWS} of them; those about several objects share a picture. J, in %: of "
        "the video behind the query, of the frame below the picture."
    )
    files = []
    for number, video in enumerate(evenly(clips.videos, _STRIPS), start=4):
        queries, names = clips.queries(video), clips.frames(video)
        chosen = evenly(list(shown.videos[video]), _STRIP_FRAMES)
        rows: list[GridRow] = []
        for together in rows_of_queries(queries, most=_STRIP_ROWS):
            captions = [
                (
                    f"{_quote(queries[query].expression)}: J {_percent(shown.of_query(video, query))}",
                    query_colour(query),
                )
                for query in together
            ]
            cells = []
            for index in chosen:
                frame = shown.videos[video][index]
                picture = _drawn(clips.image(video, index), frame.masks()[together], together)
                cells.append(Cell(picture, f"{names[index]}: J {_percent(float(frame.j[together].mean()))}"))
            rows.append(GridRow("" if rows else video, cells, captions))
        file = f"queries-{number:02d}.png"
        draw_grid(folder / file, rows)
        files.append((file, f"Fig. {number}. {video}"))
    return Figure(title, rule, files)


def loss_curves(folder: Path, runs: Sequence[ReportRun]) -> Figure:
    """Loss curves of the runs whose checkpoints have TensorBoard events beside them."""
    title = "Loss curves"
    curves = {run.name: read_losses(run.path.parent) for run in runs if not run.is_bundle}
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    if not curves:
        return Figure(title, "", notes=["Left out: there are no TensorBoard events beside the checkpoints."])
    rule = (
        "The training loss as logged, thin, and its mean over the last tenth of the run's logged points, thick. Losses "
        "of runs with different loss terms cannot be compared with each other."
    )
    draw_losses(folder / "losses.png", curves)
    absent = [run.name for run in runs if not run.is_bundle and run.name not in curves]
    notes = [f"No events beside the checkpoint of {', '.join(absent)}."] if absent else []
    return Figure(title, rule, [("losses.png", "training loss against iterations")], notes)


def of_role(recordings: Sequence[Recording], role: Role) -> Recording | None:
    """The recording of the first run with a role; None without one."""
    return next((recording for recording in recordings if recording.run.plays(role)), None)


def _best_known(recordings: Sequence[Recording]) -> Recording:
    """The bundle if there is one, else the full model, else the last run."""
    bundle = next((recording for recording in recordings if recording.run.is_bundle), None)
    return bundle or of_role(recordings, FULL) or recordings[-1]


def _beside_motion(
    folder: Path,
    file: str,
    title: str,
    rule: str,
    notes: list[str],
    examples: Sequence[Example],
    full: Recording,
    static: Recording,
    clips: ReferringClips,
) -> Figure:
    if not examples:
        return Figure(title, rule, notes=[*notes, "Left out: no frame fits the rule."])
    rows = []
    for example in examples:
        motion = full.videos[example.video][example.index].motion
        assert motion is not None, "the rules pass over frames without motion"
        image, truth = _given(clips, example)
        height, width = image.image.shape[:2]
        seen = np.asarray(cv2.resize(motion.image(), (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
        predictions = [_prediction(clips, example, recording) for recording in (full, static)]
        rows.append(GridRow(_caption(clips, example), [image, truth, Cell(seen), *predictions]))
    draw_grid(folder / file, rows, ["image", "truth", "magnitude", "with flow", "static model"])
    return Figure(title, rule, [(file, "image, truth, magnitude image, masks with flow and without")], notes)


def _given(clips: ReferringClips, example: Example) -> tuple[Cell, Cell]:
    image, truth = (clips.image(example.video, example.index), clips.masks(example.video, example.index))
    assert truth is not None, "only annotated frames are scored"
    return Cell(image), Cell(_drawn(image, truth[[example.query]], [_TRUTH]))


def _prediction(clips: ReferringClips, example: Example, recording: Recording) -> Cell:
    frame = recording.videos[example.video][example.index]
    picture = _drawn(clips.image(example.video, example.index), frame.masks()[[example.query]], [_PREDICTION])
    return Cell(picture, f"J {_percent(float(frame.j[example.query]))}")


def _drawn(image: NDArray[np.uint8], masks: NDArray[np.bool_], colours: Sequence[int]) -> NDArray[np.uint8]:
    small = np.stack([at_drawn_size(mask.astype(np.uint8) * 255) > 127 for mask in masks])
    return draw_masks(at_drawn_size(image), small, colours=colours)


def _caption(clips: ReferringClips, example: Example) -> str:
    query = clips.queries(example.video)[example.query].expression
    frame = clips.frames(example.video)[example.index]
    return f"{example.video} {frame}: {_quote(query)}, {example.reason}"


def _left_out(title: str, full: Recording | None, static: Recording | None) -> Figure:
    absent = [role for role, recording in ((FULL, full), (STATIC, static)) if recording is None]
    return Figure(
        title, "", notes=[f"Left out: it compares flow in both places with the static model. {_missing(absent)}"]
    )


def _missing(roles: Sequence[Role]) -> str:
    said = "; ".join(f"{role.title} (fusion: {role.fusion}, flow: {role.flow})" for role in roles)
    return f"Not among the runs: {said}."


def _one_sided(examples: Sequence[Example]) -> list[str]:
    """Notes about missing gains or losses."""
    return [
        f"There is no frame with a {word}."
        for word in ("gain", "loss")
        if not any(example.reason.startswith(word) for example in examples)
    ]


def _unlike(runs: Sequence[ReportRun]) -> list[str]:
    """A warning where the runs of a figure were trained differently."""
    unlike = differences(runs)
    if not unlike:
        return []
    more = len(unlike) - _MOST_DIFFERENCES
    listed = "; ".join(unlike[:_MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
    names = ", ".join(run.name for run in runs)
    return [f"Beware: these runs ({names}) were not trained alike. They differ in {listed}."]


def _quote(text: str) -> str:
    return f"\N{LEFT DOUBLE QUOTATION MARK}{text}\N{RIGHT DOUBLE QUOTATION MARK}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
