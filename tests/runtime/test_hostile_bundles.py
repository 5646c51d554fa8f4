"""Damaged or hostile bundles end in one sentence: manifests, graphs, tokenizers and references."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import TensorProto, helper
from rich.console import Console
from support.tiny_bundle import write_tiny_bundle
from support.tiny_reference import write_reference

import rvos_edge
from rvos_edge.bundle import Bundle, sha256_of
from rvos_edge.errors import UserError
from rvos_edge.inspection import as_json, print_bundle
from rvos_edge.parity.record import load_reference

FRAME = np.zeros((64, 96, 3), np.uint8)
BOUNDED = settings(
    derandomize=True, deadline=None, max_examples=100, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undamaged bundle; tests copy it or change its manifest alone."""
    return write_tiny_bundle(tmp_path_factory.mktemp("whole") / "tiny")


@pytest.fixture
def tiny(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "tiny")


def read(bundle: Path) -> None:
    """Open and inspect; a refusal must be one short sentence."""
    said = ""
    try:
        opened = Bundle.open(bundle)
        json.loads(as_json(opened))
        print_bundle(opened, Console(quiet=True))
    except UserError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1000


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**31, 2**63, 10**30, 10**400])
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(["", "..", "/etc/hostname", "\x00", "\ud800", "image", "margin", "Q", "[/]", "x" * 5000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


@pytest.mark.slow
@BOUNDED
@given(data=st.data())
def test_any_change_of_a_value_is_accepted_or_refused_in_a_sentence(whole: Path, data: st.DataObject) -> None:
    path = whole / "manifest.json"
    original = path.read_text()
    try:
        document: Any = json.loads(original)
        for _ in range(data.draw(st.integers(1, 3))):
            place = document
            while True:
                keys = list(place) if isinstance(place, dict) else list(range(len(place)))
                key = data.draw(st.sampled_from(keys))
                if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.integers(0, 3)) == 0:
                    break
                place = place[key]
            change = data.draw(st.sampled_from(["replace", "remove", "copy"]))
            if change == "replace":
                place[key] = data.draw(JSON)
            elif change == "copy":
                place[key] = json.loads(json.dumps(place[data.draw(st.sampled_from(keys))]))
            elif isinstance(place, dict) and len(document) > 1:
                del place[key]
        path.write_text(json.dumps(document))
        read(whole)
    finally:
        path.write_text(original)


@BOUNDED
@given(data=st.data())
def test_any_change_of_bytes_is_accepted_or_refused_in_a_sentence(whole: Path, data: st.DataObject) -> None:
    path = whole / "manifest.json"
    original = path.read_bytes()
    content = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        stop = min(len(content), start + data.draw(st.integers(0, 50)))
        content[start:stop] = data.draw(
            st.binary(max_size=10) | st.sampled_from([b"[" * 3000, b"9" * 6000, b"\\u0000"])
        )
    try:
        path.write_bytes(content)
        read(whole)
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 200_000 + "]" * 200_000, "nested too deeply"),
        ('{"format_version": ' + "9" * 6000 + "}", "not readable JSON"),
        ('{"a": "' + "x" * (5 << 20) + '"}', "larger than 4 MiB"),
        ('{"format_version": "' + "x" * 5000 + '"}', "format version xxx"),
    ],
    ids=["nested", "6000 digits", "5 MB", "long version"],
)
def test_content_that_is_no_manifest_is_refused(tiny: Path, content: str, said: str) -> None:
    (tiny / "manifest.json").write_text(content)
    message = refusal(lambda: Bundle.open(tiny))
    assert said in message
    assert len(message) < 400


def test_a_folder_with_a_chinese_name_and_spaces(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "模型\u3000 1")
    assert Bundle.open(tmp_path / "模型\u3000 1").manifest.name == "tiny"


@pytest.mark.parametrize("name", [b"b\xff", b"two\nlines"])
def test_a_folder_whose_name_is_not_plain_utf8(whole: Path, tmp_path: Path, name: bytes) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    shutil.copytree(whole, folder)
    assert "rename its folder" in refusal(lambda: Bundle.open(folder))


def test_a_manifest_that_links_to_itself(tiny: Path) -> None:
    (tiny / "manifest.json").unlink()
    (tiny / "manifest.json").symlink_to("manifest.json")
    refusal(lambda: Bundle.open(tiny))


def test_a_graph_that_links_to_itself(tiny: Path) -> None:
    (tiny / "aspp.onnx").unlink()
    (tiny / "aspp.onnx").symlink_to("aspp.onnx")
    assert "aspp.onnx" in refusal(lambda: Bundle.open(tiny))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["manifest.json", "aspp.onnx", "tokenizer.json"])
def test_a_file_that_may_not_be_read(tiny: Path, name: str) -> None:
    (tiny / name).chmod(0)
    assert name in refusal(lambda: Bundle.open(tiny))


def test_a_file_that_cannot_be_read(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for root, as on a medium that fails."""

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", fail)
    assert "Permission denied" in refusal(lambda: Bundle.open(tiny))
    monkeypatch.undo()
    monkeypatch.setattr("rvos_edge.bundle.sha256_of", fail)
    assert "Permission denied" in refusal(lambda: Bundle.open(tiny))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["flow"].update(iterations=10**9), "flow.iterations"),
        (lambda d: d["flow"].update(iterations=0), "flow.iterations"),
        (lambda d: d.update(size=[10**9, 10**9]), "size"),
        (lambda d: d.update(max_queries=10**12), "max_queries"),
        (lambda d: d["graphs"]["aspp"]["outputs"][0].update(shape=[1, 1 << 20, 1 << 20, 4]), "at most"),
        (lambda d: d["graphs"]["aspp"].update(file="a\x00b"), "file"),
        (lambda d: d.update(name="\x1b]0;title\x07"), "name"),
        (lambda d: d["graphs"]["flow_step"]["inputs"].pop(), "'coords'"),
        (lambda d: d["graphs"]["gating"]["outputs"][0].update(shape=["Q", 16]), "'margin'"),
    ],
)
def test_absurd_values_are_named(tiny: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    path = tiny / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    assert said in refusal(lambda: Bundle.open(tiny))


def replace_file(bundle: Path, name: str, write: Callable[[Path], object]) -> None:
    """Change a file and the hash that the manifest states for it."""
    path = bundle / "manifest.json"
    old = sha256_of(bundle / name)
    write(bundle / name)
    path.write_text(path.read_text().replace(old, sha256_of(bundle / name)))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_that_loads_and_fails_when_it_runs(tiny: Path, backend: str) -> None:
    pytest.importorskip(backend)

    def fail_late(path: Path) -> None:
        model = onnx.load(path)
        # A shape that depends on the values of the frame, and never fits them.
        nodes = [
            helper.make_node("ReduceMax", ["c5"], ["largest"], keepdims=0),
            helper.make_node("Abs", ["largest"], ["positive"]),
            helper.make_node("Cast", ["positive"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Add", ["whole", "many"], ["wide"]),
            helper.make_node("Concat", ["start", "wide"], ["shape"], axis=0),
            helper.make_node("Reshape", ["c5", "shape"], [model.graph.output[0].name]),
        ]
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.append(helper.make_tensor("many", TensorProto.INT64, [1], [1000]))
        model.graph.initializer.append(helper.make_tensor("start", TensorProto.INT64, [3], [1, 6, 8]))
        onnx.save(model, path)

    replace_file(tiny, "aspp.onnx", fail_late)

    def use() -> None:
        segmenter = rvos_edge.open(tiny, backend=backend, threads=1)
        segmenter.set_queries(["the dog"])
        segmenter.step(FRAME)

    assert "aspp.onnx" in refusal(use)


def test_weights_outside_the_graph_file_are_refused(tiny: Path) -> None:
    """The hashes would not cover them."""

    def move_weights(path: Path) -> None:
        model = onnx.load(path)
        onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)

    replace_file(tiny, "aspp.onnx", move_weights)
    assert "keeps weights in another file" in refusal(lambda: Bundle.open(tiny))


@pytest.mark.parametrize("padding", [1, 3])
def test_padded_lengths_do_not_hide_weights_outside(tiny: Path, padding: int) -> None:
    """Protocol buffers may write a length or a tag with leading zeros."""

    def hide(path: Path) -> None:
        zeros = b"\x80" * (padding - 1) + b"\x00"
        path.write_bytes(path.read_bytes() + b"\x8a" + zeros + b"\x88" + zeros + b"location")

    replace_file(tiny, "aspp.onnx", hide)
    assert "keeps weights in another file" in refusal(lambda: Bundle.open(tiny))


@pytest.mark.parametrize("content", ["", "{}", "[" * 100_000, '{"version":"1.0","model":{"type":"BPE"}}', "null"])
def test_a_broken_tokenizer(tiny: Path, content: str) -> None:
    replace_file(tiny, "tokenizer.json", lambda path: path.write_text(content))
    assert "tokenizer.json is not a usable tokenizer" in refusal(lambda: rvos_edge.open(tiny, backend="onnxruntime"))


def test_a_token_that_the_text_graph_does_not_know(tiny: Path) -> None:
    def enlarge(path: Path) -> None:
        document = json.loads(path.read_text())
        document["model"]["vocab"]["dog"] = 10**6
        path.write_text(json.dumps(document))

    replace_file(tiny, "tokenizer.json", enlarge)
    segmenter = rvos_edge.open(tiny, backend="onnxruntime", threads=1)
    assert "text.onnx cannot be run" in refusal(lambda: segmenter.set_queries(["the dog"]))


@pytest.fixture
def recorded(tiny: Path) -> Path:
    write_reference(tiny)
    return tiny


@pytest.mark.parametrize("kind", ["pickle", "shape", "missing", "no zip", "bomb"])
def test_a_broken_reference(recorded: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def damage(path: Path) -> None:
        with np.load(path) as file:
            arrays: dict[str, Any] = dict(file)
        if kind == "pickle":
            arrays["queries"] = np.array([{"code": print}], dtype=object)
        elif kind == "shape":
            arrays["in/c5"] = arrays["in/c5"][..., :-1]
        elif kind == "missing":
            del arrays["frames"]
        if kind == "no zip":
            path.write_bytes(b"PK\x03\x04" + bytes(100))
        elif kind == "bomb":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("frames.npy", "w") as member:
                for _ in range(65):
                    member.write(bytes(1 << 20))
        else:
            np.savez(path, allow_pickle=True, **arrays)

    monkeypatch.setattr("rvos_edge.parity.record._MOST_BYTES", 1 << 26)
    replace_file(recorded, "reference.npz", damage)
    message = refusal(lambda: load_reference(Bundle.open(recorded)))
    assert "reference.npz cannot be read" in message
    assert ("larger than 64 MiB" in message) is (kind == "bomb")
