"""Runs and recordings of a report, made of nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from rvos_edge.trainer.report.record import Recording, VideoRecording
from rvos_edge.trainer.report.runs import (
    ReportRun,
)


def quiet(tmp_path: Path) -> Console:
    return Console(file=(tmp_path / "log").open("a"), width=200)


def run(name: str = "run", flow: str = "none", **card: object) -> ReportRun:
    network = {"preset": "test", "fusion": "hierarchical", "flow": flow}
    return ReportRun(name, Path("runs/run/checkpoint"), network, card)


def recording(folder: Path, j: dict[str, list[list[float]]], motion: dict[str, list[float]] | None = None) -> Recording:
    """By video, J of each frame's queries; and the motion of the object by frame."""
    folder.mkdir()
    for video, rows in j.items():
        moved = (motion or {}).get(video, [math.nan] * len(rows))
        np.savez(
            folder / f"{video}.npz",
            frames=np.arange(len(rows)),
            row=np.frombuffer(b"{}", np.uint8),
            j=np.array(rows),
            motion=np.repeat(np.array(moved)[:, None], len(rows[0]), axis=1),
        )
    values = {video: {"j": float(np.mean(rows)), "f": 0.5} for video, rows in j.items()}
    whole = dict.fromkeys(("j_recall", "j_decay", "f", "f_recall", "f_decay"), 0.5)
    results = {"j": float(np.mean([row["j"] for row in values.values()])), **whole, "videos": values}
    videos = {video: VideoRecording(folder / f"{video}.npz") for video in j}
    return Recording(replace(run(), name=folder.name), results, videos)
