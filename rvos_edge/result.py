"""The result of one frame: masks, scores, boxes, and their conversion for other libraries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.flow.policy import FlowDecision

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True)
class Result:
    """The masks of one frame.

    Attributes:
        queries: The Q queries, in the order of the first axis of the arrays.
        masks: bool [Q,H,W] at the size of the frame.
        margins: float32 [Q,h,w], object minus background logit at the network's resolution.
        scores: float32 [Q], mean object probability over the mask, 0 for an empty mask.
        timings: Milliseconds by stage, in the order in which they ran; a stage that did not run is absent. If a GPU
            replays a recorded frame, all graphs are one stage, ``graph``.
        flow_used: True if optical flow was computed on this frame.
        flow: float32 [2,h,w], from this frame to the previous one in pixels of the network's input; None unless
            ``keep_flow`` is set.
        index: Number of the frame since the last reset.
        decision: Decision on the flow and its reason; None if no flow is computed.
        presence: float32 [Q], probability that each query's object is in the frame, smoothed over time; 1 where the
            bundle cannot tell.
        present: bool [Q], the same decided with hysteresis; masks of absent queries are empty unless asked for. Where
            the bundle cannot tell, a query is present if its mask is not empty.
        adapted: bool [Q], queries whose language vectors were taught by their own masks (``adaptation``).
    """

    queries: tuple[str, ...]
    masks: NDArray[np.bool_]
    margins: NDArray[np.float32]
    scores: NDArray[np.float32]
    timings: dict[str, float]
    flow_used: bool
    flow: NDArray[np.float32] | None
    index: int
    decision: FlowDecision | None = None
    presence: NDArray[np.float32] = None  # type: ignore[assignment]  # filled in below
    present: NDArray[np.bool_] = None  # type: ignore[assignment]
    adapted: NDArray[np.bool_] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        count = len(self.queries)
        if self.presence is None:
            object.__setattr__(self, "presence", np.ones(count, np.float32))
        if self.present is None:
            object.__setattr__(self, "present", self.masks.any(axis=(1, 2)))
        if self.adapted is None:
            object.__setattr__(self, "adapted", np.zeros(count, np.bool_))

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """Convert to arrays with one row per query.

        Returns:
            ``queries`` str [Q]; ``masks`` bool [Q,H,W]; ``scores`` float32 [Q]; ``boxes`` int64 [Q,4], see
            `mask_boxes`; ``areas`` int64 [Q], pixels.
        """
        return {
            "queries": np.asarray(self.queries, dtype=np.str_),
            "masks": self.masks,
            "scores": self.scores,
            "boxes": mask_boxes(self.masks),
            "areas": np.count_nonzero(self.masks, axis=(1, 2)).astype(np.int64),
        }

    def to_supervision(self) -> supervision.Detections:
        """Convert to ``supervision.Detections``, one per query with a mask that is not empty.

        ``class_id`` is the index of the query, so that colours stay when another query disappears. Boxes are half-open,
        as supervision computes areas.

        Raises:
            UserError: supervision is not installed.
        """
        try:
            import supervision
        except ModuleNotFoundError as error:
            if error.name != "supervision":
                raise
            raise UserError('supervision is not installed; run: pip install "rvos-edge[supervision]"') from error
        arrays = self.to_numpy()
        found = np.flatnonzero(arrays["areas"])
        return supervision.Detections(
            xyxy=arrays["boxes"][found].astype(np.float32),
            mask=arrays["masks"][found],
            confidence=arrays["scores"][found],
            class_id=found.astype(np.int64),
            data={"class_name": arrays["queries"][found]},
        )


def mask_boxes(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Compute the bounding boxes of masks.

    Args:
        masks: bool [Q,H,W].

    Returns:
        int64 [Q,4]: x0, y0, x1, y1 in pixels, x1 and y1 exclusive; zeros for an empty mask.
    """
    boxes = np.zeros((len(masks), 4), np.int64)
    for box, mask in zip(boxes, masks, strict=True):
        x, y, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
        if width:
            box[:] = x, y, x + width, y + height
    return boxes


class Overlap(str, Enum):
    """Rule for a pixel in several masks: `HIGHER` gives it to the last query (as in DAVIS-17), `KEEP` to all."""

    HIGHER = "higher"
    KEEP = "keep"


def resolve_overlap(result: Result, overlap: Overlap) -> Result:
    """Apply an overlap rule to the masks of a result; scores and margins stay those of each query alone."""
    if overlap is Overlap.KEEP or len(result.masks) < 2:
        return result
    return replace(result, masks=exclusive(result.masks))


def exclusive(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Remove from each mask of bool [Q,H,W] the pixels of later ones.

    Example:
        >>> exclusive(np.array([[[True, True]], [[False, True]]])).tolist()
        [[[True, False]], [[False, True]]]
    """
    out = masks.copy()
    taken = masks[-1].copy()
    for mask in out[-2::-1]:
        mask &= ~taken
        taken |= mask
    return out
