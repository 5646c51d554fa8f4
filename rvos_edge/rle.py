"""COCO's compressed run lengths, as pycocotools writes and reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BITS = 5
_SIGN = 0x10
_MORE = 0x20
_ZERO = 48


def encode_rle(mask: NDArray[np.bool_]) -> str:
    """A mask bool [H,W] as the `counts` of COCO's compressed format.

    The runs go down the columns and begin with background, which may be empty. From the fourth run on the difference
    to the run two before is kept; each number is written in groups of five bits, the lowest first, as printable
    characters.

    Example:
        >>> encode_rle(np.array([[False, True], [False, True]]))
        '22'
    """
    flat = np.ravel(mask, order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    empty = [0] if flat.size and flat[0] else []
    ends = np.asarray([*empty, 0, *changes, flat.size], dtype=np.int64)
    runs = ends[1:] - ends[:-1]
    numbers = runs.copy()
    numbers[3:] -= runs[1:-2]
    # Row i has the groups of number i; a number ends when only copies of the sign of its last group are left.
    groups, open_ = [], np.ones(len(numbers), bool)
    while open_.any():
        low = numbers & (_MORE - 1)
        numbers = numbers >> _BITS
        more = np.where(low & _SIGN, numbers != -1, numbers != 0)
        groups.append(np.where(open_, low | np.where(more, _MORE, 0), -1))
        open_ = open_ & more
    codes = np.stack(groups, axis=1).ravel()
    return bytes((codes[codes >= 0] + _ZERO).astype(np.uint8)).decode("ascii")


def decode_rle(counts: str | Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask bool [H,W] from `counts`, compressed or as a list of runs.

    Raises:
        ValueError: They are none, or not of this size.

    Example:
        >>> decode_rle("22", (2, 2)).tolist()
        [[False, True], [False, True]]
    """
    runs: list[int] = []
    if not isinstance(counts, str):
        runs = list(counts)
    else:
        number = shift = 0
        for code in counts.encode():
            group = code - _ZERO
            number |= (group & (_MORE - 1)) << shift
            shift += _BITS
            if not group & _MORE:
                number |= -1 << shift if group & _SIGN else 0
                runs.append(number + (runs[-2] if len(runs) > 2 else 0))
                number = shift = 0
    height, width = size
    if not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != height * width:
        raise ValueError("no run lengths of this size")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(width, height).T)
