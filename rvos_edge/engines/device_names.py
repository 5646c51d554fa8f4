"""Names of devices: "auto", "cpu", "cuda", and "cuda:1" for the second GPU."""

from __future__ import annotations

import os
import re
from typing import Literal

from rvos_edge.errors import UserError

Kind = Literal["auto", "cpu", "cuda"]


def device_kind(device: str) -> Kind:
    """The kind of a device, "auto", "cpu" or "cuda"; an unknown name is refused."""
    if device in ("auto", "cpu"):
        return "auto" if device == "auto" else "cpu"
    if re.fullmatch(r"cuda(:\d{1,3})?", device):
        return "cuda"
    raise UserError(f"device '{device}' is unknown; use auto, cpu, cuda, or cuda:1 for the second GPU.")


def gpu_index(device: str) -> int:
    """The index of the GPU that a device names; 0 for "auto", "cpu" and "cuda"."""
    return int(device[5:] or 0) if device_kind(device) == "cuda" else 0


def takes_tf32() -> bool:
    """True unless ``NVIDIA_TF32_OVERRIDE=0`` keeps NVIDIA's libraries from rounding products to TensorFloat-32."""
    return os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"
