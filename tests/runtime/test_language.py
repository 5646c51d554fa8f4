"""Queries that the network was not taught to understand get a warning; English ones do not."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from support.tiny_bundle import write_tiny_bundle
from tokenizers import Tokenizer
from typer.testing import CliRunner

from rvos_edge.bundle import shipped_bundle
from rvos_edge.cli import app
from rvos_edge.language import QueryWarning
from rvos_edge.opening import open_segmenter
from rvos_edge.queries import doubts, read_query_file


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(shipped_bundle() / "tokenizer.json"))


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize(
    "sentence",
    [
        "der Hund auf der linken Seite",
        "die rote Tasse",
        "un chat noir",
        "el perro a la izquierda",
        "il cane a sinistra",
        "um carro vermelho",
        "een man met hoed",
        "solda bir araba",
        "собака слева",
        "左边的狗",
        "الكلب على اليسار",
        "빨간 차",
    ],
)
def test_other_languages_are_doubted(tokenizer: Tokenizer, sentence: str) -> None:
    assert "does not look like English" in doubts([sentence], tokenizer)[0]


def test_signs_without_a_token_are_doubted(tokenizer: Tokenizer) -> None:
    assert "cannot read" in doubts(["the dog 🐕"], tokenizer)[0]
    assert "no word that the model is known" in doubts(["qwrtzuiop"], tokenizer)[0]


def test_english_is_not_doubted(tokenizer: Tokenizer) -> None:
    said = [
        "the dog on the left",
        "red",
        "a café",
        "person en pointe",
        "a die on the table",
        "the labradoodle",
        "T-shirt",
    ]
    assert doubts(said, tokenizer) == ("",) * len(said)


def test_what_people_wrote_about_real_pictures_is_not_doubted(tokenizer: Tokenizer, shared: Path) -> None:
    captions = json.loads((shared / "data/coco-captions.json").read_text())
    said = [sentence for sentences in captions.values() for sentence in sentences]
    assert len(said) > 6000
    assert [one for one in doubts(said, tokenizer) if one] == []


def test_a_segmenter_warns_and_goes_on(tiny_bundle: Path) -> None:
    segmenter = open_segmenter(tiny_bundle)
    with pytest.warns(QueryWarning, match="'die rote Tasse' does not look like English"):
        segmenter.set_queries(["die rote Tasse"])
    assert segmenter.queries == ("die rote Tasse",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter.set_queries(["the dog on the left"])


def test_run_says_it_in_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("\ufeff# a comment\nthe dog\n\n  собака слева\n", encoding="utf-8")
    arguments = ["--bundle", str(tiny_bundle), "--frames", "2", "--json", str(tmp_path / "o.jsonl")]
    queries = ["--query", "a red ball", "--queries", str(tmp_path / "queries.txt")]
    result = CliRunner().invoke(app, ["run", "--source", "synthetic", *queries, *arguments])
    assert result.exit_code == 0
    warned = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert warned == [
        "Warning: 'собака слева' does not look like English, the language of the model: its mask may be anything."
    ]
    first = json.loads((tmp_path / "o.jsonl").read_text().splitlines()[0])
    assert [query["text"] for query in first["queries"]] == ["a red ball", "the dog", "собака слева"]


def test_a_file_of_queries_has_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    for name, words in (("empty.txt", "holds no query"), ("none.txt", "cannot be read")):
        with pytest.raises(Exception, match=words):
            read_query_file(tmp_path / name)
