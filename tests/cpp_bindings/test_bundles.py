"""Damaged bundles: the C++ library refuses what the Python runtime refuses, with a code for each kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cpp_probe import Probe
from support.tiny_bundle import write_tiny_bundle, write_two_sizes

from rvos_edge.bundle import Bundle
from rvos_edge.errors import UserError

Manifest = dict[str, Any]


def at(path: str, value: Any) -> Callable[[Manifest], None]:
    """Set what a dotted path leads to; ``...`` deletes it."""

    def change(manifest: Manifest) -> None:
        *way, last = path.split(".")
        target: Any = manifest
        for name in way:
            target = target[int(name)] if isinstance(target, list) else target[name]
        key: Any = int(last) if isinstance(target, list) else last
        if value is ...:
            del target[key]
        else:
            target[key] = value

    return change


BAD_BUNDLE = {
    "missing": at("stride", ...),
    "extra": at("colour", "red"),
    "extra inside": at("graphs.aspp.colour", 1),
    "version": at("format_version", 99),
    "version as text": at("format_version", "two"),
    "no version": at("format_version", ...),
    "text for a number": at("stride", "wide"),
    "fraction": at("stride", 4.5),
    "list for a number": at("stride", []),
    "null": at("name", None),
    "number for text": at("name", 3),
    "short size": at("size", [64]),
    "long size": at("size", [64, 96, 3]),
    "size of another kind": at("size", "64x96"),
    "size": at("size", [64, 64]),
    "dtype": at("graphs.aspp.inputs.0.dtype", "float64"),
    "dim": at("graphs.aspp.inputs.0.shape.0", None),
    "precision": at("graphs.aspp.precision", "float8"),
    "weights": at("graphs.aspp.weights", 8),
    "flops": at("graphs.aspp.flops", -1),
    "too few tokens": at("text.max_tokens", 2),
    "iterations": at("flow.iterations", 0),
    "graphs": at("graphs", []),
    "a graph": at("graphs.aspp", "aspp.onnx"),
    "states": at("states.fmap_prev", 1),
    "trained": at("trained", "perhaps"),
    "queries": at("max_queries", 0),
    "licences": at("licences", "MIT"),
    "no text": at("graphs.text", ...),
    "no gating": at("graphs.gating", ...),
    "no flow_up": at("graphs.flow_up", ...),
    "state from nothing": at("states.hidden", "nothing"),
    "state that differs": at("states.hidden", "coords_next"),
    "no margin": at("graphs.gating.outputs.0.name", "margins"),
    "fed by nothing": at("graphs.aspp.inputs.0.name", "c6"),
    "fed otherwise": at("graphs.aspp.inputs.0.shape.1", "C"),
    "fed another dtype": at("graphs.aspp.inputs.0.dtype", "float16"),
    "hash": at("graphs.backbone.sha256", "0" * 64),
    "leaves": at("graphs.backbone.file", "../backbone.onnx"),
    "absolute": at("graphs.backbone.file", "/etc/passwd"),
    "tokenizer leaves": at("text.tokenizer", "../../tokenizer.json"),
}
"""Changes to a manifest that both runtimes refuse, C++ with the code ``bad_bundle``."""
NOT_FOUND = {
    "file": at("graphs.backbone.file", "backbone2.onnx"),
    "folder": at("graphs.backbone.file", "."),
    "tokenizer missing": at("text.tokenizer", "words.json"),
}
"""The same with the code ``not_found``."""


def ask(probe: Probe, requests: list[dict[str, Any]]) -> list[str]:
    return probe.lines("bundles", data="".join(json.dumps(request) + "\n" for request in requests))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def refused_by_python(path: Path) -> bool:
    try:
        Bundle.open(path)
    except UserError:
        return True
    return False


def test_the_same_manifests_are_refused(probe: Probe, tiny: Path, tmp_path: Path) -> None:
    manifest = (tiny / "manifest.json").read_text(encoding="utf-8")
    changes = {**BAD_BUNDLE, **NOT_FOUND}
    for name, change in changes.items():
        document = json.loads(manifest)
        change(document)
        folder = shutil.copytree(tiny, tmp_path / name)
        (folder / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    found = ask(probe, [{"path": str(tmp_path / name)} for name in changes])
    codes = {name: sentence.split(":")[0] for name, sentence in zip(changes, found, strict=True)}
    expected = {**dict.fromkeys(BAD_BUNDLE, "error bad_bundle"), **dict.fromkeys(NOT_FOUND, "error not_found")}
    assert codes == expected
    assert [name for name in changes if not refused_by_python(tmp_path / name)] == []


def test_an_intact_bundle_has_the_fingerprint_of_python(probe: Probe, tiny: Path) -> None:
    assert ask(probe, [{"path": str(tiny)}]) == [f"ok {Bundle.open(tiny).fingerprint}"]


def test_a_changed_byte_and_a_link_out_of_the_bundle(probe: Probe, tiny: Path, tmp_path: Path) -> None:
    damaged, linked = shutil.copytree(tiny, tmp_path / "damaged"), shutil.copytree(tiny, tmp_path / "linked")
    data = bytearray((damaged / "gating.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (damaged / "gating.onnx").write_bytes(data)
    (linked / "gating.onnx").unlink()
    (linked / "gating.onnx").symlink_to(tiny / "gating.onnx")
    found = ask(probe, [{"path": str(path)} for path in (damaged, linked)])
    assert all(sentence.startswith("error bad_bundle: ") for sentence in found)
    assert refused_by_python(damaged)
    assert refused_by_python(linked)


@pytest.mark.parametrize("text", ["[]", "3", '{"format_version": 2, "na', ""], ids=["list", "number", "torn", "empty"])
def test_a_file_that_is_no_manifest(probe: Probe, tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    (found,) = ask(probe, [{"path": str(tmp_path)}])
    assert found.startswith("error bad_bundle: ")
    assert refused_by_python(tmp_path)


def test_sizes(probe: Probe, tmp_path: Path) -> None:
    path = str(write_two_sizes(tmp_path / "two"))
    sizes = [None, (64, 96), (96, 128), (100, 100)]
    requests = [{"path": path} if size is None else {"path": path, "size": size} for size in sizes]
    found = ask(probe, requests)
    fingerprints = [f"ok {Bundle.open(path, size=size).fingerprint}" for size in sizes[:3]]
    assert found[:3] == fingerprints
    assert found[0] == found[1] != found[2]
    assert found[3].startswith("error not_found: ")
