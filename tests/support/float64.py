"""rvos-edge in float64, for tests that compare sums of different order: in float32 a fresh network magnifies their
last bits to whole percents of a gradient.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor


def use_float64(patch: pytest.MonkeyPatch) -> None:
    """Make float64 what ``.float()`` gives and what weights are made of."""

    def double(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.double()

    patch.setattr(torch.Tensor, "float", double)
    torch.set_default_dtype(torch.float64)
