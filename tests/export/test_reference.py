"""The record keeps its inputs short, and PyTorch reads them as they are kept."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from rvos_edge.export.reference import _arrays, _brief, _rounded  # noqa: E402


@pytest.mark.parametrize("largest", [255.9, 256.0, 1e-3, 0.0])
def test_eight_bits_of_the_largest_value_are_kept(largest: float) -> None:
    tensor = torch.linspace(-0.9, 1, 4001) * largest
    brief = _brief(tensor)
    assert (brief - tensor).abs().max() <= largest / 256
    assert brief.unique().numel() < 512
    assert torch.equal(_brief(brief), brief)


def test_positions_are_kept_whole_and_pytorch_reads_what_is_kept() -> None:
    names, tensors = ("fmap", "flow", "coords"), [torch.randn(1, 2, 9, 16) for _ in range(3)]
    kept = _arrays(names, tensors)
    assert [kept[name].dtype.name for name in names] == ["float16", "float32", "float32"]
    assert torch.equal(torch.from_numpy(kept["coords"]), tensors[2])
    for name, read in zip(names, _rounded(names, tensors), strict=True):
        assert torch.equal(read, torch.from_numpy(kept[name]).float())
