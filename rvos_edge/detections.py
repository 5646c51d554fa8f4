"""Results for other libraries: plain NumPy, and supervision's ``Detections``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError

if TYPE_CHECKING:
    import supervision

    from rvos_edge.segmenter import Result


def mask_boxes(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The smallest boxes around masks.

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


def to_numpy(result: Result) -> dict[str, NDArray[Any]]:
    """A result as arrays with one row per query; ``Result.to_numpy``.

    Returns:
        queries: str [Q].
        masks: bool [Q,H,W].
        scores: float32 [Q].
        boxes: int64 [Q,4], see `mask_boxes`.
        areas: int64 [Q], pixels.
    """
    return {
        "queries": np.asarray(result.queries, dtype=np.str_),
        "masks": result.masks,
        "scores": result.scores,
        "boxes": mask_boxes(result.masks),
        "areas": np.count_nonzero(result.masks, axis=(1, 2)).astype(np.int64),
    }


def to_supervision(result: Result) -> supervision.Detections:
    """A result as detections, one per query that was found; ``Result.to_supervision``.

    A query with an empty mask is no detection. ``class_id`` is the number of the query, so that colours stay when
    another one disappears; boxes are half-open, as supervision's areas count them.

    Raises:
        UserError: supervision is not installed.
    """
    try:
        import supervision
    except ModuleNotFoundError as error:
        if error.name != "supervision":
            raise
        raise UserError('supervision is not installed; run: pip install "rvos-edge[supervision]"') from error
    arrays = to_numpy(result)
    found = np.flatnonzero(arrays["areas"])
    return supervision.Detections(
        xyxy=arrays["boxes"][found].astype(np.float32),
        mask=arrays["masks"][found],
        confidence=arrays["scores"][found],
        class_id=found.astype(np.int64),
        data={"class_name": arrays["queries"][found]},
    )
