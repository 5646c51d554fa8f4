"""Frames and results for tests of what is done with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rvos_edge.result import Result
from rvos_edge.streaming.sources import Frame

MASKS = np.zeros((2, 16, 24), bool)
MASKS[0, 2:10, 4:12] = True
MASKS[1, 6:12, 8:20] = True


def make_frame(index: int = 0, name: str | None = None, fps: float = 25.0) -> Frame:
    return Frame(np.zeros((16, 24, 3), np.uint8), index, index / fps, name or f"{index:05d}", 0.0)


def make_result(masks: np.ndarray = MASKS) -> Result:
    return Result(
        queries=("a dog", "der große Ball")[: len(masks)],
        masks=masks,
        margins=np.zeros((len(masks), 4, 6), np.float32),
        scores=np.array([0.75, 0.5], np.float32)[: len(masks)],
        timings={"backbone": 4.0, "gating": 1.5},
        flow_used=True,
        flow=None,
        index=0,
    )


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
