"""Bundles that are wrong in every way: the C++ library says what the Python runtime says."""

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


CHANGES = {
    "missing": at("stride", ...),
    "extra": at("colour", "red"),
    "extra inside": at("graphs.aspp.colour", 1),
    "version": at("format_version", 5),
    "version as text": at("format_version", "two"),
    "no version": at("format_version", ...),
    "text for a number": at("stride", "wide"),
    "fraction": at("stride", 4.5),
    "whole fraction": at("stride", 4.0),
    "bool for a number": at("stride", True),
    "list for a number": at("stride", []),
    "null": at("name", None),
    "number for text": at("name", 3),
    "short size": at("size", [64]),
    "long size": at("size", [64, 96, 3]),
    "size of another kind": at("size", "64x96"),
    "size": at("size", [64, 64]),
    "mean": at("mean", [0.1, 0.2]),
    "mean of words": at("mean", [0.1, "x", None]),
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
    "trained as a number": at("trained", 1),
    "queries": at("max_queries", 0),
    "network": at("network.flow", None),
    "tools": at("tools", "many"),
    "proof": at("proofs", {"x": {"backend": "y", "graphs": {}, "mask_iou": 2, "frames": 1, "source": ""}}),
    "reference": at("reference", {"file": "reference.npz"}),
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
    "without flow": at("flow", None),
    "hash": at("graphs.backbone.sha256", "0" * 64),
    "file": at("graphs.backbone.file", "backbone2.onnx"),
    "leaves": at("graphs.backbone.file", "../backbone.onnx"),
    "absolute": at("graphs.backbone.file", "/etc/passwd"),
    "folder": at("graphs.backbone.file", "."),
    "tokenizer leaves": at("text.tokenizer", "../../tokenizer.json"),
    "tokenizer missing": at("text.tokenizer", "words.json"),
    "nothing": lambda manifest: None,
}


def python_says(path: str, size: tuple[int, int] | None = None) -> str:
    try:
        return f"ok {Bundle.open(path, size=size).fingerprint}"
    except UserError as error:
        return str(error)


def ask(probe: Probe, requests: list[dict[str, Any]]) -> list[str]:
    return probe.lines("bundles", data="".join(json.dumps(request) + "\n" for request in requests))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def test_every_sentence(probe: Probe, tiny: Path, tmp_path: Path) -> None:
    manifest = (tiny / "manifest.json").read_text(encoding="utf-8")
    for name, change in CHANGES.items():
        document = json.loads(manifest)
        change(document)
        folder = shutil.copytree(tiny, tmp_path / name)
        (folder / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    paths = [str(tmp_path / name) for name in CHANGES]
    expected = dict(zip(CHANGES, map(python_says, paths), strict=True))
    found = dict(zip(CHANGES, ask(probe, [{"path": path} for path in paths]), strict=True))
    assert found == expected
    accepted = {name for name, sentence in expected.items() if sentence.startswith("ok ")}
    assert {"nothing", "whole fraction"} <= accepted
    assert len(accepted) < 10


def test_a_changed_byte_and_a_link_out_of_the_bundle(probe: Probe, tiny: Path, tmp_path: Path) -> None:
    damaged, linked = (shutil.copytree(tiny, tmp_path / "damaged"), shutil.copytree(tiny, tmp_path / "linked"))
    data = bytearray((damaged / "gating.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (damaged / "gating.onnx").write_bytes(data)
    (linked / "gating.onnx").unlink()
    (linked / "gating.onnx").symlink_to(tiny / "gating.onnx")
    paths = [str(damaged), str(linked)]
    assert ask(probe, [{"path": path} for path in paths]) == [python_says(path) for path in paths]


def test_what_is_no_bundle(probe: Probe, tmp_path: Path) -> None:
    for name, text in {"list": "[]", "number": "3", "torn": '{"format_version": 2, "na', "empty": ""}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(text, encoding="utf-8")
    paths = [f"{tmp_path}/nowhere/", f"{tmp_path}/./list", *(str(tmp_path / n) for n in ("number", "torn", "empty"))]
    for path, found in zip(paths, ask(probe, [{"path": path} for path in paths]), strict=True):
        expected = python_says(path)
        # What is wrong with the JSON every parser says in its own words.
        assert found.split(" (")[0] == expected.split(" (")[0]
        assert found.split(")")[-1] == expected.split(")")[-1]


def test_sizes(probe: Probe, tmp_path: Path) -> None:
    path = str(write_two_sizes(tmp_path / "two"))
    sizes = [None, (64, 96), (96, 128), (100, 100)]
    requests = [{"path": path} if size is None else {"path": path, "size": size} for size in sizes]
    found = ask(probe, requests)
    assert found == [python_says(path, size) for size in sizes]
    assert found[0] == found[1] != found[2]
