"""Arithmetic of each graph, and the conversion of the network to it.

Strongly typed TensorRT computes in the types of the ONNX file. Types are therefore chosen here, in PyTorch, by
``half()`` on modules and casts in their forward passes, and not by a flag of the engine builder.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rvos_edge.export.graphs import COARSE, LANGUAGE, STATES
from rvos_edge.manifest import FLOW_COORDS, FLOW_OUTPUT, MARGIN_OUTPUT, PRESENCE_OUTPUT, Arithmetic
from rvos_edge.trainer.model.hinet import HINet

Precision = Literal["float32", "float16", "bfloat16"]
"""Requested precision: ``--fp32``, ``--fp16`` or ``--bf16``."""


@dataclass(frozen=True)
class Policy:
    """Arithmetic of a graph under ``--fp16``, ``--bf16`` and ``--int8``.

    Attributes:
        float16: Type of its layers under ``--fp16``, stated by the ONNX file.
        bfloat16: Type under ``--bf16``; the file stays float32 and the type is a hint to OpenVINO.
        wide: Parts that stay float32 in a float16 graph.
        int8: Beginnings of the weights' names whose convolutions ``--int8`` leaves as they are; None for all.
    """

    float16: Arithmetic
    bfloat16: Arithmetic
    wide: str
    why: str
    int8: tuple[str, ...] | None = None


POLICY: dict[str, Policy] = {
    "text": Policy("float32", "float32", "all", "runs on the host, once per query, and is then remembered"),
    "backbone": Policy("float16", "bfloat16", "normalising pixels", "most of the arithmetic; trained with AMP", ()),
    "aspp": Policy("float16", "bfloat16", "nothing", "as the backbone", ()),
    "vision": Policy("float16", "bfloat16", "normalising pixels", "the two in one, where they are fused", ()),
    "flow_encode": Policy("float16", "bfloat16", "normalising pixels", "moves the flow by 0.03 pixels"),
    "flow_context": Policy("float16", "bfloat16", "normalising pixels", "each side of the product has taken C^-1/4"),
    "flow_step": Policy("float16", "bfloat16", "positions, flow", "place and flow apart: fractions survive"),
    "flow_up": Policy("float16", "float32", "positions, convex sums", "weighs motions; a thousandth of the arithmetic"),
    "gating": Policy(
        "float16",
        "bfloat16",
        "motion image, margin, presence",
        "means over all pixels add up small numbers",
        ("model.motion.", "model.decoder.head.2."),
    ),
    "teach": Policy(
        "float32", "float32", "all", "gradients of a thousandth count; runs on the host, while a query learns"
    ),
    "boundary": Policy("float32", "float32", "all", "variances are differences of near numbers"),
}
"""Policy by graph. "Convex sums" are those of RAFT-large's upsampling."""


def arithmetic(graph: str, precision: Precision) -> Arithmetic:
    """Arithmetic of a graph under a requested precision."""
    if precision == "float32":
        return "float32"
    policy = POLICY[graph]
    return policy.float16 if precision == "float16" else policy.bfloat16


_WIDE_WIRES = frozenset(
    {FLOW_COORDS, STATES[FLOW_COORDS], FLOW_OUTPUT, COARSE, MARGIN_OUTPUT, PRESENCE_OUTPUT, *LANGUAGE}
)


def wire_dtype(name: str, precision: Precision) -> torch.dtype:
    """Type of a floating-point tensor between graphs."""
    return torch.float16 if precision == "float16" and name not in _WIDE_WIRES else torch.float32


def wired(names: Sequence[str], tensors: Sequence[Tensor], precision: Precision) -> tuple[Tensor, ...]:
    """Tensors converted to their types between graphs; integers are unchanged."""
    return tuple(
        tensor.to(wire_dtype(name, precision)) if tensor.is_floating_point() else tensor
        for name, tensor in zip(names, tensors, strict=True)
    )


def narrowed(model: HINet, precision: Precision) -> HINet:
    """A copy of the network with float16 layers in its float16 graphs; the network itself for other precisions.

    Forward passes cast where ``POLICY`` keeps parts in float32.
    """
    if precision != "float16":
        return model
    narrow = copy.deepcopy(model)
    seen = (narrow.backbone, narrow.aspp, narrow.vision, narrow.motion)
    for part in (*seen, narrow.interaction, narrow.attention, narrow.decoder, narrow.presence):
        if part is not None:
            part.half()
    if narrow.flow is not None:
        narrow.flow.raft.half()
    return narrow
