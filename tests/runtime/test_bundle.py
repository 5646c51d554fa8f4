"""Opening a bundle: a whole one opens, anything else is refused in one sentence that says what and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tiny_bundle import write_tiny_bundle

from rvos_edge import bundle
from rvos_edge.bundle import Bundle, shipped_bundle
from rvos_edge.errors import UserError


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny")


def _edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = bundle / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _refusal(bundle: Path) -> str:
    with pytest.raises(UserError) as caught:
        Bundle.open(bundle)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_whole_bundle_opens(tiny: Path) -> None:
    bundle = Bundle.open(str(tiny))
    assert bundle.manifest.size == (64, 96)
    assert bundle.graph_path("aspp") == tiny / "aspp.onnx"
    assert bundle.tokenizer_path.is_file()
    assert len(bundle.fingerprint) == 64


def test_a_bundle_without_flow_opens(tmp_path: Path) -> None:
    assert Bundle.open(write_tiny_bundle(tmp_path, flow=False)).manifest.flow is None


def test_the_fingerprint_changes_with_any_file(tiny: Path, tmp_path: Path) -> None:
    other = write_tiny_bundle(tmp_path / "other", size=(96, 96))
    assert Bundle.open(tiny).fingerprint != Bundle.open(other).fingerprint


@pytest.mark.parametrize("name", ["backbone.onnx", "gating.onnx", "tokenizer.json"])
def test_a_changed_byte_is_found(tiny: Path, name: str) -> None:
    content = bytearray((tiny / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tiny / name).write_bytes(content)
    message = _refusal(tiny)
    assert name in message
    assert "damaged" in message


@pytest.mark.parametrize("name", ["flow_step.onnx", "tokenizer.json"])
def test_a_missing_file_is_named(tiny: Path, name: str) -> None:
    (tiny / name).unlink()
    assert name in _refusal(tiny)


def test_a_missing_graph_is_named(tiny: Path) -> None:
    _edit(tiny, lambda document: document["graphs"].pop("aspp"))
    assert "'aspp' is missing" in _refusal(tiny)


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/hostname"])
def test_a_path_may_not_leave_the_bundle(tiny: Path, name: str) -> None:
    (tiny.parent / "outside.onnx").write_bytes((tiny / "aspp.onnx").read_bytes())
    _edit(tiny, lambda document: document["graphs"]["aspp"].update(file=name))
    assert "leaves the bundle" in _refusal(tiny)


def test_a_link_may_not_leave_the_bundle(tiny: Path) -> None:
    outside = tiny.parent / "outside.onnx"
    (tiny / "aspp.onnx").rename(outside)
    (tiny / "aspp.onnx").symlink_to(outside)
    assert "leaves the bundle" in _refusal(tiny)


def test_the_shipped_bundle_is_found_through_the_links_of_an_editable_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = shipped_bundle()
    (tmp_path / "bundle.py").symlink_to(Path(str(bundle.__file__)).resolve())
    monkeypatch.setattr(bundle, "__file__", str(tmp_path / "bundle.py"))
    assert shipped_bundle() == expected


def test_bundles_of_the_format_before_are_read(tiny: Path) -> None:
    _edit(tiny, lambda document: document.update(format_version=2))
    assert Bundle.open(tiny).manifest.answer_graphs == ("gating",)


def test_another_format_version_is_refused(tiny: Path) -> None:
    _edit(tiny, lambda document: document.update(format_version=99))
    assert "format version 99" in _refusal(tiny)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    assert "no manifest.json" in _refusal(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe\x00", b"{}"])
def test_a_broken_manifest_is_refused(tiny: Path, content: bytes) -> None:
    (tiny / "manifest.json").write_bytes(content)
    assert "manifest.json" in _refusal(tiny)


def _set(document: dict[str, Any], graph: str, side: str, tensor: str, **fields: Any) -> None:
    next(t for t in document["graphs"][graph][side] if t["name"] == tensor).update(fields)


@pytest.mark.parametrize("fields", [{"dtype": "float16"}, {"shape": [1, 4, 9, 12]}])
def test_wires_must_agree(tiny: Path, fields: dict[str, Any]) -> None:
    _edit(tiny, lambda document: _set(document, "gating", "inputs", "c3", **fields))
    message = _refusal(tiny)
    assert "'c3' of graph 'gating'" in message
    assert "float32[1, 4, 8, 12]" in message


def test_every_input_must_be_fed(tiny: Path) -> None:
    _edit(tiny, lambda document: _set(document, "gating", "inputs", "c3", name="c6"))
    assert "'c6' of graph 'gating' is fed by nothing" in _refusal(tiny)


def test_a_state_must_fit_its_source(tiny: Path) -> None:
    def widen(document: dict[str, Any]) -> None:
        _set(document, "flow_step", "outputs", "hidden_next", shape=[1, 5, 8, 12])

    _edit(tiny, widen)
    assert "'hidden' cannot swap with 'hidden_next'" in _refusal(tiny)


def test_a_state_must_have_a_source(tiny: Path) -> None:
    _edit(tiny, lambda document: document["states"].update(fmap_prev="nothing"))
    assert "'nothing'" in _refusal(tiny)


def test_the_margin_must_be_made(tiny: Path) -> None:
    _edit(tiny, lambda document: _set(document, "gating", "outputs", "margin", name="logits"))
    assert "produces 'margin'" in _refusal(tiny)
