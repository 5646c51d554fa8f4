"""What becomes of pixels that several queries claim."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rvos_edge.segmenter import Result


class Overlap(str, Enum):
    """`HIGHER`: the pixel belongs to the query given last, the rule of DAVIS-17; `KEEP`: to all of them."""

    HIGHER = "higher"
    KEEP = "keep"


def resolve_overlap(result: Result, overlap: Overlap) -> Result:
    """A result whose masks follow the rule; scores and margins stay those of each query alone."""
    if overlap is Overlap.KEEP or len(result.masks) < 2:
        return result
    return replace(result, masks=exclusive(result.masks))


def exclusive(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Masks bool [Q,H,W] without the pixels of later ones.

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
