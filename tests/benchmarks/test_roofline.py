"""Lower bounds, worked out by hand."""

from __future__ import annotations

from io import StringIO
from typing import get_args

import pytest
from rich.console import Console

from rvos_edge.benchmarks import cpu_peak
from rvos_edge.benchmarks.devices import DEVICES, DevicePeak
from rvos_edge.benchmarks.roofline import bounds, choose_devices, frame_share, graph_bytes, total_ms
from rvos_edge.benchmarks.show import print_roof
from rvos_edge.bundle import Bundle, shipped_bundle
from rvos_edge.errors import UserError
from rvos_edge.manifest import Arithmetic, GraphSpec, TensorSpec

DEVICE = DevicePeak(
    key="toy", name="Toy", float16=4.0, float32=1.0, tf32=2.0, bandwidth=100.0, basis="by hand", source="here"
)


def graph(**changes: object) -> GraphSpec:
    """2 GFLOP, a million weights stored in eight bits, an image in, a float32 map out."""
    spec = GraphSpec(
        file="x.onnx",
        sha256="0" * 64,
        inputs=(TensorSpec(name="image", dtype="uint8", shape=(100, 100, 3)),),
        outputs=(TensorSpec(name="map", dtype="float32", shape=(1, 10, 50, 50)),),
        weights="int8",
        flops=2_000_000_000,
        weight_bytes=1_000_000,
    )
    return spec.model_copy(update=changes)


def test_bytes_are_as_wide_as_the_arithmetic() -> None:
    assert graph_bytes(graph(), "float32") == 4_000_000 + 30_000 + 4 * 25_000
    assert graph_bytes(graph(), "float16") == 2_000_000 + 30_000 + 2 * 25_000


def test_peak_of_each_type() -> None:
    assert DEVICE.flops("float32") == 2e12  # TF32 is faster than the CUDA cores
    assert DEVICE.flops("float16") == 4e12
    assert DEVICE.flops("bfloat16") == 2e12  # not known: as float32


def test_the_longer_of_arithmetic_and_memory() -> None:
    manifest = Bundle.open(shipped_bundle()).manifest
    heavy, wide = (graph(precision="float16"), graph(flops=1000, weight_bytes=50_000_000, precision="float16"))
    step = graph(flops=1_000_000_000)
    manifest = manifest.model_copy(
        update={"graphs": {"text": graph(), "gating": heavy, "aspp": wide, "flow_step": step}}
    )
    by_name = {bound.graph: bound for bound in bounds(manifest, DEVICE)}
    assert "text" not in by_name
    assert by_name["gating"].milliseconds == pytest.approx(0.5)  # 2e9 / 4e12
    assert by_name["gating"].limit == "FLOP"
    assert by_name["aspp"].milliseconds == pytest.approx((100e6 + 30e3 + 50e3) / 100e9 * 1e3)
    assert by_name["aspp"].limit == "bytes"
    assert manifest.flow is not None
    assert by_name["flow_step"].runs == manifest.flow.iterations == 3
    assert by_name["flow_step"].milliseconds == pytest.approx(3 * 1e9 / 2e12 * 1e3)
    assert total_ms(by_name.values()) == pytest.approx(0.5 + by_name["aspp"].milliseconds + 1.5)


@pytest.mark.parametrize("arithmetic", get_args(Arithmetic))
def test_every_arithmetic_is_shown(arithmetic: Arithmetic) -> None:
    manifest = Bundle.open(shipped_bundle()).manifest
    console = Console(file=StringIO(), width=120)
    print_roof(manifest.model_copy(update={"graphs": {"gating": graph(precision=arithmetic)}}), DEVICE, None, console)
    assert "gating" in console.file.getvalue()


def test_share_of_the_roof() -> None:
    found = bounds(Bundle.open(shipped_bundle()).manifest, DEVICE)
    twice = {bound.graph: 2 * bound.milliseconds for bound in found}
    assert frame_share(found, twice) == pytest.approx(0.5)
    assert frame_share(found, {"preprocess": 1.0}) is None


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.key)
def test_devices_are_plausible(device: DevicePeak) -> None:
    """Figures that were mixed up (sparse for dense, TOPS for TFLOPS) break what holds for every generation."""
    if device.tf32 is not None:
        accumulating_in_float32 = device.bfloat16 or 0
        assert device.tf32 == pytest.approx(accumulating_in_float32 / 2, rel=0.03)
    assert 2 <= device.float16 / device.float32 < 40
    assert 18 < 1000 * device.float16 / device.bandwidth < 1000  # FLOP per byte
    assert device.source.startswith("https://")


def test_choice() -> None:
    assert [device.key for device in choose_devices("h100")] == ["h100"]
    assert len({device.key for device in choose_devices("all")}) == len(DEVICES)
    with pytest.raises(UserError, match="--roofline jetson: there is no such device; choose cpu, all, jetson-nano"):
        choose_devices("jetson")


def test_this_cpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_SIDE": 128, "_SECONDS": 0.0, "_COPY": 2**20}.items():
        monkeypatch.setattr(cpu_peak, name, value)
    cpu = cpu_peak.measure_cpu("this CPU")
    assert cpu.name == "this CPU"
    assert 0 < cpu.float32 <= min(cpu.float16, cpu.bfloat16 or 0)
    assert cpu.bandwidth > 0
    assert "128 x 128" in cpu.basis
    assert total_ms(bounds(Bundle.open(shipped_bundle()).manifest, cpu)) > 0
