"""The arithmetic of a run."""

from __future__ import annotations

import warnings

import pytest
import torch

from rvos_edge.trainer.speed import autocast_dtype

_CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["AVX512-BF16", "no AVX512-BF16"])
def has_bfloat16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """An x86 CPU with and one without bfloat16; True for the first."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return bool(request.param)


def test_fast_is_bfloat16_where_the_cpu_computes_it(has_bfloat16: bool) -> None:
    assert autocast_dtype("fast", _CPU) is (torch.bfloat16 if has_bfloat16 else None)
    assert autocast_dtype("auto", _CPU) is None


def test_bfloat16_in_software_is_warned_of(has_bfloat16: bool) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert autocast_dtype("bf16", _CPU) is torch.bfloat16
    assert ["'fast' takes what is faster" in str(warning.message) for warning in said] == [True] * (not has_bfloat16)


def test_gpus_take_float16() -> None:
    assert autocast_dtype("fast", torch.device("cuda")) is torch.float16
