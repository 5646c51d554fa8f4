"""Measured peak rates of this CPU: a large matrix product, and a copy larger than the caches."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from rvos_edge.benchmarks.devices import DevicePeak

_SIDE = 1536
_SECONDS = 1.0
_COPY = 512 * 2**20
"""Bytes of the copy: more than the caches hold."""


def measure_cpu(name: str) -> DevicePeak:
    """Measure the CPU's peak rates for a few seconds; the fastest repetition counts.

    NumPy multiplies in float32; OpenVINO, where it is installed, in float32, bfloat16 and float16. Without OpenVINO the
    narrow types get the float32 rate, as ONNX Runtime computes them in float32.
    """
    single = _numpy_flops()
    narrow: dict[str, float] = {}
    if find_spec("openvino") is not None:
        for hint in ("f32", "bf16", "f16"):
            narrow[hint] = _openvino_flops(hint)
    single = max(single, narrow.get("f32", 0.0))
    return DevicePeak(
        key="cpu",
        name=name,
        float16=max(single, narrow.get("f16", 0.0)) / 1e12,
        float32=single / 1e12,
        tf32=None,
        bandwidth=_copy_bytes() / 1e9,
        basis=f"measured: {_SIDE} x {_SIDE} matrix product, copy of {_COPY // 2**20} MiB",
        source="this machine",
        bfloat16=max(single, narrow.get("bf16", 0.0)) / 1e12,
    )


def _numpy_flops() -> float:
    left, right = _matrices()
    out = np.empty_like(left)
    return _product_flops() / _best(lambda: np.matmul(left, right, out=out))


def _openvino_flops(hint: str) -> float:
    import openvino as ov
    from openvino import opset13 as ops

    from rvos_edge.engines.openvino import shared_core

    left, right = _matrices()
    a, b = (ops.parameter(array.shape, ov.Type.f32) for array in (left, right))
    model = ov.Model([ops.matmul(a, b, False, False)], [a, b])
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    request = shared_core().compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(0, ov.Tensor(left, shared_memory=True))
    request.set_input_tensor(1, ov.Tensor(right, shared_memory=True))
    return _product_flops() / _best(request.infer)


def _matrices() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.random((_SIDE, _SIDE), np.float32), rng.random((_SIDE, _SIDE), np.float32)


def _product_flops() -> float:
    return 2.0 * _SIDE**3


def _copy_bytes() -> float:
    """Memory bandwidth in bytes per second, reading and writing together."""
    source = np.ones(_COPY, np.uint8)
    target = np.zeros_like(source)
    return 2.0 * source.nbytes / _best(lambda: np.copyto(target, source))


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest repetition, of at least three."""
    work()
    best, runs, begin = float("inf"), 0, time.perf_counter()
    while runs < 3 or time.perf_counter() - begin < _SECONDS:
        mark = time.perf_counter()
        work()
        best, runs = min(best, time.perf_counter() - mark), runs + 1
    return best
