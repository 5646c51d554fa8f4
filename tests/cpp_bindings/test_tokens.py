"""The C++ tokenizer against the `tokenizers` package, and the queries that C++ takes against those of Python."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.cpp_probe import Probe, hexadecimal
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from rvos_edge.bundle import shipped_bundle
from rvos_edge.errors import UserError
from rvos_edge.language import _ENGLISH, _FOREIGN, doubt
from rvos_edge.nouns import article, load_nouns, plural
from rvos_edge.text import check_queries
from rvos_edge.wordings import wordings

TOKENIZER = shipped_bundle() / "tokenizer.json"
READABLE = [chr(code) for code in (*range(0x80), *range(0x2010, 0x2028))]
"""All characters of a query that C++ reads: ASCII and typographic punctuation."""
WORDS = ["the", "a", "dog", "on", "left", "red", "ball", "unaffable", "skateboarding", "Cafe", "naive"]
PIECES = [
    *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\u2014\u201c\u2026",
    "[mask]",
    "##ing",
    "don't",
    "don\u2019t",
    "x" * 101,
]


def expressions(count: int) -> list[str]:
    """Sentences of words, odd pieces and any readable characters."""
    chance = random.Random(7)
    made = []
    for _ in range(count):
        parts = []
        for _ in range(chance.randint(1, 12)):
            kind = chance.random()
            if kind < 0.5:
                parts.append(chance.choice(WORDS))
            elif kind < 0.8:
                parts.append(chance.choice(PIECES))
            else:
                parts.append("".join(chance.choice(READABLE) for _ in range(chance.randint(1, 6))))
        made.append(chance.choice(["", " "]).join(parts))
    return made


def compare(probe: Probe, path: Path, texts: Sequence[str]) -> None:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    expected = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    lines = probe.lines("tokenize", str(path), data=hexadecimal(texts))
    found = [[int(word) for word in line.split()] for line in lines]
    assert len(found) == len(texts)
    wrong = [(text, a, b) for text, a, b in zip(texts, expected, found, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} of {len(texts)} differ: {wrong[:3]!a}"


def test_ten_thousand_expressions(probe: Probe) -> None:
    compare(probe, TOKENIZER, expressions(10_000))


@pytest.mark.parametrize("lowercase", [True, False], ids=["uncased", "cased"])
def test_every_readable_character(probe: Probe, tmp_path: Path, lowercase: bool) -> None:
    """A vocabulary of single characters shows the result for each, where the real one would say [UNK]."""
    words = {word: i for i, word in enumerate(["[UNK]", "[CLS]", "[SEP]"])}
    for char in READABLE:
        for made in {*unicodedata.normalize("NFD", char), char, char.lower()}:
            if not made.isspace():
                words.setdefault(made, len(words))
                words.setdefault(f"##{made}", len(words))
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    compare(probe, tmp_path / "tokenizer.json", [f"a{char}b" for char in READABLE])


@pytest.mark.parametrize(
    "query",
    [
        "  the\tdog \n on\u3000the left\x1f ",
        "plain",
        "\x00",
        "",
        " \u2003\x1c ",
        "x" * 101,
        "a \ud800 dog",
        "don't \udfff",
    ],
    ids=ascii,
)
def test_the_same_queries_are_taken(probe: Probe, query: str) -> None:
    found = probe("queries", data=hexadecimal([query])).decode().removesuffix("\n")
    try:
        assert found == check_queries([query])[0]
    except UserError:
        assert found.startswith("error bad_query: ")


@pytest.mark.parametrize(
    "query",
    ["the \u72d7", "\u0441\u043e\u0431\u0430\u043a\u0430", "a dog \U0001f436", "a\u200bb", "the caf\u00e9"],
    ids=ascii,
)
def test_other_scripts_are_refused(probe: Probe, query: str) -> None:
    (found,) = probe.lines("queries", data=hexadecimal([query]))
    assert found.startswith("error bad_query: query 1 has the character U+")


def test_cpp_finds_the_same_other_wordings(probe: Probe) -> None:
    texts = ["two Dogs running", "an owl on a branch", "a kite flibber", "Mice and geese", "the dog's ball", "-", "a"]
    for noun, *_ in load_nouns().words[::10]:
        texts += [f"{article(noun)} on the left", f"three {plural(noun)}", f"the red {noun} flying", f"{noun} zorbling"]
    found = [json.loads(line) for line in probe.lines("wordings", data=hexadecimal(texts))]
    assert found == [list(wordings(text)) for text in texts]
    assert {len(each) for each in found} == {2, 3, 4}


def test_cpp_knows_the_function_words_of_python(probe: Probe) -> None:
    def doubted(texts: list[str]) -> list[str]:
        lines = probe.lines("doubts", data=hexadecimal(texts))
        return [text for text, line in zip(texts, lines, strict=True) if line]

    foreign = sorted(word for word in _FOREIGN if word.isascii())
    assert doubted([f"{word} {word}" for word in foreign]) == [f"{word} {word}" for word in foreign]
    english = [f"le {word} zug" for word in sorted(_ENGLISH)]
    assert doubted(english) == []
    said = ["der rote Ball auf dem Tisch", "le chien rouge", "the dog on the left", "a die on the table", "dog"]
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    assert probe.lines("doubts", data=hexadecimal(said)) == [
        doubt(text, tokenizer.encode(text).tokens) for text in said
    ]
