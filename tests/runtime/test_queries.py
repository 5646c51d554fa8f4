"""A query may be a sentence or what was taught, which travels as a small file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.tiny_bundle import Reference, read_manifest, write_manifest, write_tiny_bundle
from support.tiny_graphs import CHANNELS

import rvos_edge
from rvos_edge import TaughtQuery, UserError
from rvos_edge.queries import LARGEST_FILE, read_queries


def _query(bundle: Path, sentence: str = "the red ball", **changes: object) -> TaughtQuery:
    vectors = {f"lang{i + 1}": np.full(c, 0.1 * (i + 1), np.float32) for i, c in enumerate(CHANNELS)}
    facts = {"sentence": sentence, "vectors": vectors, "network": read_manifest(bundle).identity, **changes}
    return TaughtQuery(**facts)  # type: ignore[arg-type]


def test_a_file_gives_the_query_back(tiny: Path, tmp_path: Path) -> None:
    query = _query(tiny, name="my mug", shots=3, j=0.8, sentence_j=0.6, presence_shift=0.25)
    query.save(tmp_path / "mug.query")
    again = TaughtQuery.load(tmp_path / "mug.query")
    for name, vector in query.vectors.items():
        np.testing.assert_array_equal(again.vectors[name], vector)
    assert (again.label, again.sentence, again.shots, again.j, again.sentence_j, again.presence_shift) == (
        "my mug",
        "the red ball",
        3,
        0.8,
        0.6,
        0.25,
    )


def test_the_file_of_the_largest_network_has_at_most_four_kilobytes(tmp_path: Path) -> None:
    """``paper`` has vectors of 48, 48, 48 and 256."""
    rng = np.random.default_rng(0)
    vectors = {f"lang{i + 1}": rng.normal(size=c).astype(np.float32) for i, c in enumerate((48, 48, 48, 256))}
    query = TaughtQuery("the person with the blue backpack on the left", vectors, "a" * 32, name="her", shots=5, j=0.71)
    query.save(tmp_path / "her.query")
    assert (tmp_path / "her.query").stat().st_size <= LARGEST_FILE
    with pytest.raises(UserError, match="shorter name or sentence"):
        TaughtQuery("a very long sentence " * 150, vectors, "a" * 32).save(tmp_path / "long.query")
    with pytest.raises(UserError, match="at most 100 characters, not 101"):
        TaughtQuery("a mug", vectors, "a" * 32, name="m" * 101).save(tmp_path / "long.query")
    assert not (tmp_path / "long.query").exists()


def test_sentences_and_taught_queries_are_answered_together(tiny: Path) -> None:
    """Each row is answered from its own vectors."""
    query = _query(tiny, name="mug")
    segmenter = rvos_edge.open(tiny, device="cpu", backend="onnxruntime", threads=1)
    segmenter.set_queries(["a dog", query])
    assert segmenter.queries == ("a dog", "mug")
    frame = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)
    result = segmenter.step(frame)
    reference = Reference()
    sentence, _ = reference.step(frame, ["a dog"])
    reference.text = lambda _: list(query.vectors.values())  # type: ignore[method-assign]
    reference.reset()
    taught, _ = reference.step(frame, ["mug"])
    np.testing.assert_allclose(result.margins, np.concatenate([sentence, taught]), atol=2e-4)


def test_a_command_line_names_files_with_an_at_sign(tiny: Path, tmp_path: Path) -> None:
    _query(tiny, name="mug").save(tmp_path / "mug.query")
    first, second = read_queries(["a dog", f"@{tmp_path / 'mug.query'}"])
    assert first == "a dog"
    assert isinstance(second, TaughtQuery)


def test_a_query_of_another_network_is_refused_with_the_remedy(tiny: Path, tmp_path: Path) -> None:
    other = write_tiny_bundle(tmp_path / "other")
    write_manifest(other, read_manifest(other).model_copy(update={"network_id": "2" * 32}))
    segmenter = rvos_edge.open(other, device="cpu", backend="onnxruntime", threads=1)
    segmenter.set_queries(["a dog"])
    with pytest.raises(UserError, match=r"was taught to another network.*teach it again"):
        segmenter.set_queries([_query(tiny)])
    assert segmenter.queries == ("a dog",)


def test_an_export_of_the_same_weights_takes_it(tiny: Path, tmp_path: Path) -> None:
    """The network's weights identify it, not the checkpoint's file nor the graphs."""
    other = write_tiny_bundle(tmp_path / "other", size=(96, 128))
    write_manifest(other, read_manifest(other).model_copy(update={"checkpoint_sha256": "3" * 64}))
    segmenter = rvos_edge.open(other, device="cpu", backend="onnxruntime", threads=1)
    segmenter.set_queries([_query(tiny)])
    assert segmenter.queries == ("the red ball",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vectors": {"lang1": "???"}}, "damaged"),
        ({"format_version": 9}, "format version 9"),
        ({"pixels": "iVBORw0KGgo="}, "not a taught query"),
        ({"vectors": {"lang1": "AADAfwAAwH8AAMB/AADAfw=="}}, "not finite"),
        ({"name": "x" * 5000}, "larger than"),
    ],
)
def test_a_damaged_file_is_one_sentence(tiny: Path, tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "mug.query"
    _query(tiny).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=said):
        TaughtQuery.load(path)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[" * 4000, b'{"a":' * 600, b"[]"])
def test_bytes_that_are_no_query_are_one_sentence(data: bytes) -> None:
    with pytest.raises(UserError, match=r"^mug.query is not a taught query"):
        TaughtQuery.from_json(data, "mug.query")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rvos-edge teach"):
        read_queries([f"@{tmp_path / 'none.query'}"])
