"""The roof of this CPU, measured: a large matrix product, and a copy that no cache can hold."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rvos_edge.benchmarks.devices import DevicePeak

_SIDE = 1536
_SECONDS = 1.0
_LEAST_COPY = 256 * 2**20
_MOST_COPY = 1024 * 2**20


def measure_cpu(name: str) -> DevicePeak:
    """Measure for a few seconds; the best of many tries counts, because others can only slow a try down.

    NumPy multiplies in float32. OpenVINO does too, and in bfloat16 and float16, where it is installed; without it
    those count as float32, which is what ONNX Runtime computes them in.

    Args:
        name: What to call the CPU.
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
        basis=f"measured: {_SIDE} x {_SIDE} matrix product, copy of {_copy_size() // 2**20} MiB",
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
    """Bytes per second, read and written ones together."""
    source = np.ones(_copy_size(), np.uint8)
    target = np.zeros_like(source)
    return 2.0 * source.nbytes / _best(lambda: np.copyto(target, source))


def _copy_size() -> int:
    """Four times the last cache, within bounds that a small computer's memory holds."""
    sizes = [_LEAST_COPY]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        match = re.fullmatch(r"(\d+)([KM])", file.read_text(encoding="ascii").strip())
        if match:
            sizes.append(4 * int(match[1]) * (2**10 if match[2] == "K" else 2**20))
    return min(max(sizes), _MOST_COPY)


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of many runs, of at least three."""
    work()
    best, runs, begin = float("inf"), 0, time.perf_counter()
    while runs < 3 or time.perf_counter() - begin < _SECONDS:
        mark = time.perf_counter()
        work()
        best, runs = min(best, time.perf_counter() - mark), runs + 1
    return best
