"""Loss curves from the TensorBoard events of training runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

_TAG = "loss"
_WINDOW = 0.1


def read_losses(run: Path) -> dict[int, float]:
    """Loss by iteration, ascending, of the events in a run's folder; an iteration that a resumed run repeated has its
    later value.
    """
    points: dict[int, float] = {}
    for file in sorted(run.glob("events.out.tfevents.*")):
        events = EventAccumulator(str(file))
        events.Reload()
        if _TAG in events.Tags()["scalars"]:
            points |= {event.step: event.value for event in events.Scalars(_TAG)}
    return dict(sorted(points.items()))


def draw_losses(path: Path, curves: Mapping[str, Mapping[int, float]]) -> None:
    """Draw the curves of all runs into one PNG."""
    figure = Figure(figsize=(8, 3.6), dpi=150, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(curves.items()):
        steps, losses = np.array(list(points)), np.array(list(points.values()))
        colour = f"C{number % 10}"
        axes.plot(steps, losses, color=colour, linewidth=0.7, alpha=0.35)
        axes.plot(steps, _running_mean(losses), color=colour, linewidth=1.8, label=name.replace("$", r"\$"))
    axes.set_xlabel("iteration")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, format="png", metadata={"Software": None})


def _running_mean(values: NDArray[np.float64]) -> list[float]:
    window = max(1, round(_WINDOW * len(values)))
    return [float(values[max(0, i + 1 - window) : i + 1].mean()) for i in range(len(values))]
