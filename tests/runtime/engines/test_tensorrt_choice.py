"""The choice of TensorRT, and of the engines that fit the GPU at hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from support.fake_cuda import FakeCuda

import rvos_edge
from rvos_edge.bundle import Bundle
from rvos_edge.engines import registry
from rvos_edge.engines.tensorrt import api, build, gpu
from rvos_edge.engines.tensorrt.backend import TensorRtBackend, find_engines
from rvos_edge.engines.tensorrt.build import BuildOptions, ensure_engines
from rvos_edge.errors import UserError
from rvos_edge.segmenter import Segmenter
from rvos_edge.synthetic.camera import SyntheticCamera

QUERIES = ["a dog", "the red ball", "a cat on the left"]


FRAMES = [frame.image for _, frame in zip(range(14), SyntheticCamera(seed=2, size=(64, 96)), strict=False)]


def test_engines_of_tensorrt_rtx_are_built_for_the_gpu_that_is_here(
    bundle: Bundle, machine: Callable[..., FakeCuda]
) -> None:
    machine(rtx=True, capability="75")
    segmenter = Segmenter(bundle=bundle, backend=TensorRtBackend(bundle=bundle, flavour="tensorrt-rtx"))
    segmenter.set_queries(QUERIES[:1])
    assert segmenter.step(FRAMES[0]).masks.shape == (1, 64, 96)


def test_a_gpu_that_tensorrt_rtx_does_not_know_is_not_ranked(
    bundle: Bundle, machine: Callable[..., FakeCuda], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(rtx=True, capability="90")
    monkeypatch.setattr(api, "is_installed", lambda flavour: flavour == "tensorrt-rtx")
    monkeypatch.setattr(registry, "find_gpu", lambda *_: gpu.Gpu("NVIDIA H200", "90"))
    assert "tensorrt" not in rvos_edge.open(bundle.path).backend_reason
    with pytest.raises(UserError, match="builds no engines for NVIDIA Orin, compute capability 90, only for 75, 86"):
        rvos_edge.open(bundle.path, backend="tensorrt-rtx")


def test_kernels_that_tensorrt_rtx_compiles_are_cached(bundle: Bundle, machine: Callable[..., FakeCuda]) -> None:
    cuda = machine(rtx=True)
    for _ in range(2):
        backend = TensorRtBackend(bundle=bundle, flavour="tensorrt-rtx")
        segmenter = Segmenter(bundle=bundle, backend=backend)
        segmenter.set_queries(QUERIES[:1])
        for frame in FRAMES[:6]:
            segmenter.step(frame)
        caches = {path.stem: path for path in bundle.path.rglob("*.runtime-cache")}
        assert set(caches) == set(bundle.manifest.graphs) - {"text"}
        assert caches["gating"].read_text() == "gating"
    assert backend.name == "TensorRT-RTX 1.7.1 (NVIDIA Orin)"
    assert "launch" in cuda.names()


def test_engines_aimed_at_this_gpu_elsewhere_are_used(bundle: Bundle, machine: Callable[..., FakeCuda]) -> None:
    machine(rtx=True)
    with pytest.raises(UserError, match="there is no engine of graph 'backbone'"):
        find_engines(bundle, "tensorrt-rtx", build=False)
    aimed = ensure_engines(bundle, BuildOptions("tensorrt-rtx", ("86",)))
    assert find_engines(bundle, "tensorrt-rtx", build=False) == aimed
    # Those of a damaged set are built again, for the GPU that is here.
    aimed["aspp"].write_bytes(b"damaged")
    assert find_engines(bundle, "tensorrt-rtx")["gating"] != aimed["gating"]


def test_an_engine_that_does_not_fit_is_named(bundle: Bundle, machine: Callable[..., FakeCuda]) -> None:
    cuda = machine()
    backend = TensorRtBackend(bundle=bundle, flavour="tensorrt")
    path, spec = bundle.graph_path("aspp"), bundle.manifest.graphs["aspp"]
    trt = cuda.trt  # type: ignore[attr-defined]
    trt.nptype = lambda dtype: np.float16
    with pytest.raises(UserError, match=r"aspp\.engine: tensor 'c5' is float16\[1, 5, 8, 12\] where manifest.json has"):
        backend.load(path, spec)
    with pytest.raises(UserError, match="is no graph of"):
        backend.load(path, spec.model_copy(update={"flops": 1}))
    (engine,) = bundle.path.rglob("aspp.engine")
    engine.write_bytes(b"of another version")
    with pytest.raises(UserError, match=r"cannot be loaded by TensorRT 10\.3\.0 \(the plan is of another version\)"):
        backend.load(path, spec)


def test_backends_are_chosen_by_name_and_device(
    bundle: Bundle, machine: Callable[..., FakeCuda], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine()
    backend = registry.open_backend("tensorrt", bundle=bundle, threads=1)
    assert backend.name == "TensorRT 10.3.0 (NVIDIA Orin)"
    with pytest.raises(UserError, match="'tensorrt' cannot use device 'cpu'; use device 'cuda'"):
        registry.open_backend("tensorrt", device="cpu", bundle=bundle)
    monkeypatch.setattr(api, "is_installed", lambda flavour: flavour == "tensorrt")
    monkeypatch.setattr(registry, "find_gpu", lambda *_: None)
    here, cpu = registry.available_backends(bundle, "auto"), registry.available_backends(bundle)
    assert "tensorrt" not in (*here, *cpu)
    assert registry.available_backends(bundle, "cuda") == ("onnxruntime", "tensorrt")
    monkeypatch.setattr(registry, "find_gpu", lambda *_: gpu.Gpu("NVIDIA Orin", "87"))
    assert "tensorrt" in registry.available_backends(bundle, "auto")


def test_engines_are_taken_where_they_are_built_already(
    bundle: Bundle, machine: Callable[..., FakeCuda], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine()
    monkeypatch.setattr(api, "is_installed", lambda flavour: flavour == "tensorrt")
    monkeypatch.setattr(registry, "find_gpu", lambda *_: gpu.Gpu("NVIDIA Orin", "86"))
    before = rvos_edge.open(bundle.path)
    assert "tensorrt cannot be used" in before.backend_reason
    assert f"run: rvos-edge build {bundle.path}" in before.backend_reason
    build.ensure_engines(bundle, build.BuildOptions("tensorrt"))
    after = rvos_edge.open(bundle.path)
    assert after.backend_name == "TensorRT 10.3.0 (NVIDIA Orin)"
    assert after.backend_reason == "it is the fastest on a GPU"
