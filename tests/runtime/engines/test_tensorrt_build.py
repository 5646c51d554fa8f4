"""Engines are built by the real TensorRT-RTX, which needs no GPU to build; full TensorRT is played by a fake."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from support.tiny_bundle import write_manifest, write_tiny_bundle, write_two_sizes
from typer.testing import CliRunner

from rvos_edge.bundle import Bundle, sha256_of
from rvos_edge.cli import app
from rvos_edge.engines.tensorrt import api, build, gpu
from rvos_edge.engines.tensorrt.build import BuildJob, BuildOptions, build_isolated, build_plan, ensure_engines
from rvos_edge.engines.tensorrt.engine_cache import EngineCache
from rvos_edge.errors import UserError

pytest.importorskip("tensorrt_rtx")

AMPERE = BuildOptions("tensorrt-rtx", ("86",))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(write_tiny_bundle(tmp_path / "tiny"))


def _job(bundle: Bundle, graph: str, options: BuildOptions = AMPERE) -> BuildJob:
    return BuildJob(graph, bundle.graph_path(graph), bundle.manifest.graphs[graph], 8, 16, None, options)


def _replace(bundle: Bundle, graph: str, nodes: list[Any], inputs: dict[str, list[int]]) -> Bundle:
    """Put other nodes into a graph, with the manifest's hash following."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    output = helper.make_tensor_value_info("v4", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph(nodes, graph, values, [output]), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    path = bundle.graph_path(graph)
    onnx.save(model, str(path))
    specs = {**bundle.manifest.graphs}
    specs[graph] = specs[graph].model_copy(update={"sha256": sha256_of(path)})
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"graphs": specs}))
    return Bundle.open(bundle.path)


def test_every_graph_is_built_once_and_then_found(bundle: Bundle) -> None:
    first = ensure_engines(bundle, AMPERE)
    assert set(first) == set(bundle.manifest.graphs) - {"text"}
    assert all(path.stat().st_size > 1000 for path in first.values())
    times = {path: path.stat().st_mtime_ns for path in first.values()}
    again = ensure_engines(bundle, AMPERE, build=False)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in again.values()} == times


def test_inspect_lists_the_engines(bundle: Bundle) -> None:
    ensure_engines(bundle, AMPERE, graphs=["aspp", "gating"])
    _replace(bundle, "aspp", [helper.make_node("Relu", ["c5"], ["v4"])], {"c5": [1, 5, 8, 12]})
    shown = CliRunner().invoke(app, ["inspect", str(bundle.path)], env={"COLUMNS": "160"}).output
    assert shown.count("tensorrt-rtx 1.") == 2
    assert shown.count("of another graph file") == 1


def test_engines_are_built_for_every_size_of_a_bundle(tmp_path: Path) -> None:
    both = write_two_sizes(tmp_path / "both")
    arguments = ["build", str(both), "--target", "tensorrt-rtx", "--compute-capability", "86"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert [line.split(": ")[1].split(", ")[0] for line in lines] == [
        "7 tensorrt-rtx engines of 64x96 for 86",
        "7 tensorrt-rtx engines of 96x128 for 86",
    ]
    for size in ((64, 96), (96, 128)):
        engines = ensure_engines(Bundle.open(both, size=size), AMPERE, build=False)
        assert len(engines) == 7


def test_a_changed_graph_is_built_anew_and_no_build_says_why(bundle: Bundle) -> None:
    old = ensure_engines(bundle, AMPERE, graphs=["aspp"])["aspp"]
    node = helper.make_node("Relu", ["c5"], ["v4"])
    changed = _replace(bundle, "aspp", [node], {"c5": [1, 5, 8, 12]})
    with pytest.raises(UserError, match=r"the engine of graph 'aspp' was made for the graph file \w{16} and not"):
        ensure_engines(changed, AMPERE, graphs=["aspp"], build=False)
    assert old.is_file()
    new = ensure_engines(changed, AMPERE, graphs=["aspp"])["aspp"]
    assert new.is_file()
    assert not old.exists()


def test_progress_is_reported(bundle: Bundle) -> None:
    shares: list[float] = []
    build_plan(_job(bundle, "backbone"), shares.append)
    assert shares
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_an_unknown_node_fails_the_build_by_name(bundle: Bundle) -> None:
    node = helper.make_node("Sorcery", ["c5"], ["v4"], name="spell", domain="dark.arts")
    changed = _replace(bundle, "aspp", [node], {"c5": [1, 5, 8, 12]})
    with pytest.raises(UserError, match=r"Graph 'aspp' cannot be parsed by tensorrt-rtx: node 'spell' \(Sorcery\)"):
        build_plan(_job(changed, "aspp"), print)


def test_an_unused_input_fails_the_build(bundle: Bundle) -> None:
    node = helper.make_node("Relu", ["c5"], ["v4"])
    changed = _replace(bundle, "aspp", [node], {"c5": [1, 5, 8, 12], "c4": [1, 4, 8, 12]})
    with pytest.raises(UserError, match=r"Graph 'aspp'.*c4"):
        build_plan(_job(changed, "aspp"), print)


def test_a_process_of_its_own_builds_the_same(bundle: Bundle) -> None:
    shares: list[float] = []
    plan = build_isolated(_job(bundle, "flow_up"), shares.append)
    assert len(plan) == pytest.approx(len(build_plan(_job(bundle, "flow_up"), print)), rel=0.1)
    assert shares[-1] == 1.0
    node = helper.make_node("Sorcery", ["c5"], ["v4"], name="spell", domain="dark.arts")
    changed = _replace(bundle, "aspp", [node], {"c5": [1, 5, 8, 12]})
    with pytest.raises(UserError, match="'aspp' cannot be parsed"):
        build_isolated(_job(changed, "aspp"), print)


def test_a_killed_build_leaves_no_engine(bundle: Bundle) -> None:
    def kill() -> None:
        while not multiprocessing.active_children():
            time.sleep(0.01)
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    options = BuildOptions("tensorrt-rtx", ("86",), isolated=True)
    with pytest.raises(UserError, match="'backbone' was ended by signal 9, most likely for lack of memory"):
        ensure_engines(bundle, options, graphs=["backbone"])
    killer.join()
    assert not list(EngineCache(bundle).entries())
    assert not list(bundle.path.rglob("*.engine"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--target", "tensorrt-rtx", "--compute-capability", "99"), "--compute-capability 99 is unknown"),
        (("--target", "tensorrt-rtx"), "no NVIDIA GPU with a driver is here"),
        (("--target", "vulkan"), "target 'vulkan' builds no engines"),
        (
            ("--target", "tensorrt-rtx", "--compute-capability", "86", "--no-build"),
            "there is no engine of graph 'backbone'; leave out --no-build",
        ),
    ],
)
def test_bad_options_get_a_sentence(
    bundle: Bundle, arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "find_gpu", lambda *_: None)
    done = CliRunner().invoke(app, ["build", str(bundle.path), *arguments])
    assert done.exit_code == 2
    assert sentence in done.output
    assert not (bundle.path / "engines").exists()


def test_a_gpu_that_the_builder_does_not_know_is_refused_before_building(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "find_gpu", lambda *_: gpu.Gpu("NVIDIA H200", "90"))
    done = CliRunner().invoke(app, ["build", str(bundle.path), "--target", "tensorrt-rtx"])
    assert done.exit_code == 2
    assert "builds no engines for NVIDIA H200, compute capability 90" in " ".join(done.output.split())
    assert not (bundle.path / "engines").exists()


def test_without_an_aim_the_engine_is_for_the_gpu_here(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine for one generation is smaller than one for the three that TensorRT-RTX takes by itself."""
    monkeypatch.setattr(build, "find_gpu", lambda *_: gpu.Gpu("GeForce RTX 2080", "75"))
    here = ensure_engines(bundle, BuildOptions("tensorrt-rtx"), graphs=["backbone"])["backbone"]
    three = build_plan(_job(bundle, "backbone", BuildOptions("tensorrt-rtx", ("75", "86", "89"))), print)
    assert here.stat().st_size < len(three)


def test_missing_tensorrt_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs tensorrt, which is not installed: it comes with JetPack"):
        api.load("tensorrt")


class _Config:
    """TensorRT 10.3 has no compute capabilities, a timing cache and a workspace limit."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.said.append((pool, size))

    def create_timing_cache(self, data: bytes) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: data + b"+1")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self.cache

    def add_optimization_profile(self, profile: Any) -> None:
        self.said.append(profile)


def _tensorrt_10(configs: list[_Config], flags: list[int]) -> Any:
    """Enough of TensorRT 10.3's interface: typed networks at bit 1, no IProgressMonitor, engines for the GPU here."""

    class Network:
        num_inputs = 4

        def get_input(self, index: int) -> SimpleNamespace:
            return SimpleNamespace(name=f"lang{index + 1}")

    class Builder:
        def __init__(self, logger: Any) -> None: ...

        def create_network(self, flag: int) -> Network:
            flags.append(flag)
            return Network()

        def create_builder_config(self) -> _Config:
            configs.append(_Config())
            return configs[-1]

        def create_optimization_profile(self) -> Any:
            shapes: dict[str, Any] = {}
            return SimpleNamespace(set_shape=lambda name, *extents: shapes.update({name: extents}), shapes=shapes)

        def build_serialized_network(self, network: Network, config: _Config) -> bytes:
            return b"plan of 10.3"

    class Parser:
        num_errors = 0

        def __init__(self, network: Network, logger: Any) -> None: ...

        def parse_from_file(self, path: str) -> bool:
            return True

    class ILogger:
        Severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0, WARNING=2)

    return SimpleNamespace(
        __version__="10.3.0",
        ILogger=ILogger,
        Builder=Builder,
        OnnxParser=Parser,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
    )


def test_full_tensorrt_builds_engines_too(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[_Config] = []
    flags: list[int] = []
    trt = _tensorrt_10(configs, flags)
    monkeypatch.setattr(api, "load", lambda flavour: trt)
    monkeypatch.setattr(build, "find_gpu", lambda *_: gpu.Gpu("Orin", "87"))
    monkeypatch.setattr(build, "_check_inputs", lambda *_: None)
    options = BuildOptions("tensorrt", workspace=512)
    engines = ensure_engines(bundle, options, graphs=["gating", "aspp"])
    assert engines["gating"].read_bytes() == b"plan of 10.3"
    assert flags == [1 << 1] * 2
    assert configs[0].said[0] == ("workspace", 512 << 20)
    # One query to sixty-four, and every other extent as it is.
    assert configs[0].said[1].shapes["lang1"] == ((1, 4), (2, 4), (64, 4))
    assert len(configs[1].said) == 1
    (timings,) = EngineCache(bundle).root.glob("timing-*")
    assert timings.read_bytes() == b"+1+1"  # the second build began with the timings of the first
    key = next(EngineCache(bundle).entries())[1].key
    assert (key.gpu, key.capabilities, key.version) == ("Orin", ("87",), "10.3.0")
    with pytest.raises(UserError, match=r"86 is unknown to tensorrt 10\.3\.0; it builds for the GPU"):
        ensure_engines(bundle, BuildOptions("tensorrt", ("86",)))
    monkeypatch.setattr(build, "find_gpu", lambda *_: gpu.Gpu("Xavier", "72"))
    with pytest.raises(UserError, match="GPU Orin and not Xavier"):
        ensure_engines(bundle, options, graphs=["gating"], build=False)


def test_the_gpu_is_detected_through_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(buffer: Any, length: int, device: Any) -> int:
        buffer.value = b"NVIDIA GeForce RTX 3060"
        return 0

    def attribute(value: Any, number: int, device: Any) -> int:
        value._obj.value = {75: 8, 76: 6}[number]
        return 0

    driver = SimpleNamespace(
        cuInit=lambda flags: 0,
        cuDeviceGet=lambda device, ordinal: int(ordinal > 0),
        cuDeviceGetName=name,
        cuDeviceGetAttribute=attribute,
    )
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda library: driver)
    assert gpu.find_gpu() == gpu.Gpu("NVIDIA GeForce RTX 3060", "86")
    assert gpu.find_gpu(1) is None
    driver.cuInit = lambda flags: 100
    assert gpu.find_gpu() is None
