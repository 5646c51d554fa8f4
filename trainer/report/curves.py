"""Curves from the TensorBoard events of training runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rvos_edge.trainer.report.grid import save

LOSS, _RATE, VALIDATION = "loss", "lr", "validation/"
"""Tags of the training loss and the learning rate, and beginning of the tags of what is measured now and then."""
_WINDOW = 0.1

Curves = Mapping[str, Mapping[int, float]]
"""Values by iteration, ascending, by tag."""


def read_curves(run: Path) -> Curves:
    """All scalars in the events of a run's folder; an iteration that a resumed run repeated has its later value."""
    found: dict[str, dict[int, float]] = {}
    for file in sorted(run.glob("events.out.tfevents.*")):
        events = EventAccumulator(str(file))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, {}).update({event.step: event.value for event in events.Scalars(tag)})
    return {tag: dict(sorted(points.items())) for tag, points in found.items()}


def draw_curves(path: Path, runs: Mapping[str, Curves]) -> None:
    """Draw a panel for each tag, the loss first and validation next, with a curve of each run, as PNG and PDF.

    Values of every iteration are drawn thin, and their mean (``smooth``) thick.
    """
    tags = sorted({tag for curves in runs.values() for tag in curves}, key=lambda tag: (_rank(tag), tag))
    figure = Figure(figsize=(8, 1.2 + 2.2 * len(tags)), dpi=150, facecolor="white", layout="constrained")
    panels = figure.subplots(len(tags), 1, sharex=True, squeeze=False)[:, 0]
    for tag, axes in zip(tags, panels, strict=True):
        for number, (name, curves) in enumerate(runs.items()):
            points = curves.get(tag, {})
            steps, values = np.array(list(points)), np.array(list(points.values()))
            style = {"color": f"C{number % 10}", "label": name.replace("$", r"\$")}
            if tag.startswith(VALIDATION):
                axes.plot(steps, values, marker="o", markersize=3, linewidth=1.2, **style)
            elif tag == _RATE:
                axes.plot(steps, values, linewidth=1.8, **style)
            else:
                axes.plot(steps, values, color=style["color"], linewidth=0.7, alpha=0.35)
                axes.plot(steps, smooth(values), linewidth=1.8, **style)
        axes.set_ylabel(tag)
        axes.grid(alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[-1].set_xlabel("iteration")
    figure.align_ylabels(panels)
    panels[0].legend(frameon=False, fontsize=9)
    save(figure, path)


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over a tenth of the values around each one, so that the curve does not lag; fewer at the ends."""
    half = round(_WINDOW * len(values) / 2)
    return np.array([values[max(0, place - half) : place + half + 1].mean() for place in range(len(values))])


def _rank(tag: str) -> int:
    return 0 if tag == LOSS else 1 if tag.startswith(VALIDATION) else 2
