"""Training loss that compares the masks of expressions about one frame (beyond the paper)."""

from __future__ import annotations

import torch
from torch import Tensor

from rvos_edge.trainer.distributed.ranks import gathered
from rvos_edge.trainer.losses.alignment import apart, ranked, shrink


def contrast(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy over the expressions of a frame of the mean margin inside each region, a scalar.

    Cross-entropy over pixels is low for a mask that covers every candidate a little. Here the mean margin of an
    expression inside its own region must be above those of the other expressions there, and above its own inside their
    regions, as in the losses that contrast images and captions (Radford et al., "Learning transferable visual models
    from natural language supervision", ICML 2021, section 2.3). Expressions whose regions overlap are not compared.

    Args:
        logits: Float [B,Q,2,h,w].
        masks: uint8 [B,Q,H,W]: 0 background, 1 object, 255 ignore.
    """
    with torch.autocast(logits.device.type, enabled=False):  # sums over a region leave the range of float16
        margin = logits[:, :, 1].float() - logits[:, :, 0].float()
        share, counted = shrink(masks, (margin.shape[-2], margin.shape[-1]))
        inside = share * counted
        table = torch.einsum("bihw,bjhw->bij", inside, margin) / inside.sum((2, 3)).clamp(min=1e-3).unsqueeze(-1)
    share, table = gathered(share), gathered(table)
    present = (share > 0.5).flatten(2).any(2)
    others = apart(share)
    return ranked(table, others, present) + ranked(table.transpose(1, 2), others & present.unsqueeze(1), present)
