"""Atrous spatial pyramid pooling on C5: torchvision's module with the preset's width and rates."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from rvos_edge.trainer.model.presets import ModelConfig


def build_aspp(config: ModelConfig, in_channels: int) -> nn.Module:
    """Atrous spatial pyramid pooling [B,in,h,w] -> [B,c_4,h,w] (supplement, section 1)."""
    aspp: Any = ASPP(in_channels, list(config.aspp_rates), config.aspp_channels)
    # Dropout 0.1 instead of torchvision's 0.5 (our reading).
    aspp.project[3] = nn.Dropout(0.1)
    module: nn.Module = aspp
    return module
