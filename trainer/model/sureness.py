"""Where the line between object and background is drawn, by how sure the network is of its object (beyond the paper).

At zero an object of which the network is sure comes out too large, with its mirror image and its like beside it; one
of which it is unsure comes out in pieces. So the line moves with the mean margin inside of it. There is nothing to
train, and training does without.
"""

from __future__ import annotations

from torch import Tensor

_USUAL = 2.2
"""Mean margin inside an object at which the line stays at zero."""
_SHARE = 0.5
"""Of what the mean has more or less than that, the line moves by this ..."""
_LOWEST, _HIGHEST = -1.0, 2.0
"""... but no further than here."""


def by_sureness(margin: Tensor) -> Tensor:
    """Margins [...,h,w] -> the same less the place of the line, so that an object is again what is above zero.

    Where nothing was above zero, nothing will be.

    Example:
        >>> import torch
        >>> by_sureness(torch.tensor([[5.2, 5.2, 1.0, -3.0]]))
        tensor([[ 4.4000,  4.4000,  0.2000, -3.8000]])
    """
    inside = (margin > 0).to(margin.dtype)
    found = inside.amax(dim=(-2, -1), keepdim=True)
    mean = (margin * inside).mean(dim=(-2, -1), keepdim=True) / inside.mean(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
    return margin - found * (_SHARE * (mean - _USUAL)).clamp(_LOWEST, _HIGHEST)
