"""A machine with CUDA and TensorRT, which are played by ``fake_cuda`` and ``fake_tensorrt``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.fake_cuda import FakeCuda
from support.fake_tensorrt import fake_tensorrt
from support.tiny_bundle import write_tiny_bundle

from rvos_edge import FlowOptions
from rvos_edge.bundle import Bundle
from rvos_edge.engines.tensorrt import api, build, gpu
from rvos_edge.engines.tensorrt import backend as tensorrt
from rvos_edge.engines.tensorrt.backend import TensorRtBackend
from rvos_edge.segmenter import Segmenter

QUERIES = ["a dog", "the red ball", "a cat on the left"]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(write_tiny_bundle(tmp_path / "tiny"))


Open = Callable[..., tuple[Segmenter, FakeCuda]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCuda]:
    """Makes this a machine with GPUs and TensorRT."""

    def make(*, eager: bool = True, rtx: bool = False, index: int = 0, capability: str = "86") -> FakeCuda:
        cuda = FakeCuda(eager=eager, index=index)
        trt = fake_tensorrt(cuda, rtx=rtx, capability=capability)
        cuda.trt = trt  # type: ignore[attr-defined]
        monkeypatch.setattr(api, "load", lambda flavour: trt)
        for module in (build, tensorrt):
            monkeypatch.setattr(module, "find_gpu", lambda *_: gpu.Gpu("NVIDIA Orin", capability))
            monkeypatch.setattr(module, "open_cuda", {index: cuda}.__getitem__)
        return cuda

    return make


@pytest.fixture
def opened(bundle: Bundle, machine: Callable[..., FakeCuda]) -> Open:
    def make(*, flow: FlowOptions | None = None, eager: bool = True, **options: Any) -> tuple[Segmenter, FakeCuda]:
        cuda = machine(eager=eager)
        backend = TensorRtBackend(bundle=bundle, flavour="tensorrt", **options)
        segmenter = Segmenter(bundle=bundle, backend=backend, flow=flow)
        segmenter.set_queries(QUERIES[:2])
        return segmenter, cuda

    return make
