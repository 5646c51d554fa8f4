"""The result of one frame: masks, scores, boxes, and their conversion for other libraries."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import new_file
from rvos_edge.errors import UserError
from rvos_edge.outputs import check_replaceable, mark_file, names_path
from rvos_edge.rle import encode_rle

if TYPE_CHECKING:
    import supervision

    from rvos_edge.flow.policy import FlowDecision


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The masks of one frame.

    Two results are equal if they find the same: times, flow and picture do not count.

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
        image: The frame, uint8 [H,W,3] BGR, not copied; None if unknown.
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
    image: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        count = len(self.queries)
        if self.presence is None:
            object.__setattr__(self, "presence", np.ones(count, np.float32))
        if self.present is None:
            object.__setattr__(self, "present", self.masks.any(axis=(1, 2)))
        if self.adapted is None:
            object.__setattr__(self, "adapted", np.zeros(count, np.bool_))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result):
            return NotImplemented
        arrays = ("masks", "margins", "scores", "presence", "present", "adapted")
        return (self.queries, self.index) == (other.queries, other.index) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in arrays
        )

    def __repr__(self) -> str:
        height, width = self.masks.shape[1:]
        found = (
            f"{query!r} {score:.2f} {box}" if box[2] else f"{query!r} not found"
            for query, score, box in zip(self.queries, self.scores, self.boxes.tolist(), strict=True)
        )
        return f"<Result of frame {self.index}, {height}x{width}: {', '.join(found)}>"

    @cached_property
    def boxes(self) -> NDArray[np.int64]:
        """int64 [Q,4]: x0, y0, x1, y1 in pixels, x1 and y1 exclusive; zeros for an empty mask."""
        return mask_boxes(self.masks)

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """int64 [Q]: pixels of each mask."""
        return np.array([np.count_nonzero(mask) for mask in self.masks], np.int64)  # nine times as fast as by axes

    def plot(self, image: NDArray[np.uint8] | None = None, *, opacity: float = 0.5) -> NDArray[np.uint8]:
        """Draw the masks and their queries over a copy of the frame, or of another picture of its size.

        Returns:
            uint8 [H,W,3] BGR.

        Raises:
            UserError: The result does not know its frame and none is given.
        """
        from rvos_edge.streaming.overlay import draw_overlay

        shown = self.image if image is None else image
        if shown is None:
            raise UserError("this result does not know its frame; give it: result.plot(frame).")
        return draw_overlay(shown, self, opacity=opacity)

    def save(self, path: str | Path) -> None:
        """Write what `plot` draws as a PNG or JPEG.

        Raises:
            UserError: The file has another ending, cannot be written, or is none of this program's.
        """
        import cv2

        suffix = Path(path).suffix.lower()
        if suffix not in PICTURE_SUFFIXES:
            raise UserError(f"{path} must end in {', '.join(sorted(PICTURE_SUFFIXES))}; choose one of them.")
        check_replaceable(Path(path))
        with names_path(path), new_file(Path(path)) as temporary:
            temporary.write_bytes(cv2.imencode(suffix, self.plot())[1].tobytes())
            mark_file(temporary)

    def to_dict(self) -> dict[str, Any]:
        """Convert to what JSON takes, one line of ``run --json``.

        Returns:
            ``size`` [height, width]; ``queries``, for each ``text``, ``score``, ``presence``, ``present``, ``adapted``,
            ``area`` as a fraction of the frame and ``bbox`` [x0, y0, x1, y1] or None; ``timings_ms`` by stage;
            ``total_ms``; ``flow_used``; ``flow``, the decision on it or None.
        """
        height, width = self.masks.shape[1:]
        found = (self.queries, self.scores, self.presence, self.present, self.adapted, self.areas, self.boxes.tolist())
        names = ("action", "iterations", "reason", "late")
        return {
            "size": [height, width],
            "queries": [
                {
                    "text": text,
                    "score": rounded(score, 4),
                    "presence": rounded(presence, 4),
                    "present": bool(present),
                    "adapted": bool(adapted),
                    "area": round(int(area) / (height * width), 6),
                    "bbox": box if area else None,
                }
                for text, score, presence, present, adapted, area, box in zip(*found, strict=True)
            ],
            "timings_ms": {stage: rounded(value, 3) for stage, value in self.timings.items()},
            "total_ms": rounded(sum(self.timings.values()), 3),
            "flow_used": bool(self.flow_used),
            "flow": None if self.decision is None else {name: getattr(self.decision, name) for name in names},
        }

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """Convert to annotations of COCO, one for each mask that is not empty.

        Args:
            image_id: The picture's id.

        Returns:
            Each with ``image_id``, ``category_id`` (1 for the first query), ``text``, ``segmentation`` (compressed run
            lengths, as pycocotools takes them), ``area``, ``bbox`` [x, y, width, height], ``iscrowd`` 0 and ``score``.
        """
        return [
            {
                "image_id": image_id,
                "category_id": row + 1,
                "text": self.queries[row],
                **coco_entry(mask),
                "score": rounded(self.scores[row], 4),
            }
            for row, mask in enumerate(self.masks)
            if self.areas[row]
        ]

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """Convert to arrays with one row per query.

        Returns:
            ``queries`` str [Q]; ``masks`` bool [Q,H,W]; ``scores`` float32 [Q]; ``boxes`` int64 [Q,4] and ``areas``
            int64 [Q], the attributes of these names.
        """
        return {
            "queries": np.asarray(self.queries, dtype=np.str_),
            "masks": self.masks,
            "scores": self.scores,
            "boxes": self.boxes,
            "areas": self.areas,
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


PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})


def rounded(value: float | np.floating[Any], digits: int) -> float | None:
    """A rounded number; None for NaN and infinity, which JSON lacks."""
    return round(float(value), digits) if math.isfinite(value) else None


def mask_boxes(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Bounding boxes int64 [Q,4] of masks bool [Q,H,W]: x0, y0, x1, y1 in pixels, x1 and y1 exclusive; zeros for an
    empty mask.
    """
    import cv2  # here, so that the command line starts without it

    boxes = np.zeros((len(masks), 4), np.int64)
    for box, mask in zip(boxes, masks, strict=True):
        x, y, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
        if width:
            box[:] = x, y, x + width, y + height
    return boxes


def coco_entry(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """The part of a COCO annotation that is about a mask, bool [H,W]: segmentation, area, bbox and iscrowd."""
    x0, y0, x1, y1 = mask_boxes(mask[None])[0].tolist()
    return {
        "segmentation": {"size": list(mask.shape), "counts": encode_rle(mask)},
        "area": int(np.count_nonzero(mask)),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
    }


class Overlap(str, Enum):
    """Rule for a pixel in several masks: `KEEP` gives it to all, `HIGHER` to the last query (as in DAVIS-17)."""

    KEEP = "keep"
    HIGHER = "higher"


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
