"""The C++ tokenizer against the `tokenizers` package, and the C++ refusals of queries against those of Python."""

from __future__ import annotations

import json
import random
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from support.cpp_probe import Probe, hexadecimal
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from rvos_edge.bundle import shipped_bundle
from rvos_edge.errors import UserError
from rvos_edge.text import check_queries

TOKENIZER = shipped_bundle() / "tokenizer.json"
EVERY = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
ODD = [char for char in EVERY if ord(char) % 61 == 0 or ord(char) < 0x3400 or 0xA000 <= ord(char) < 0x20000]
ODD += [chr(code) for code in (*range(0x2F800, 0x2FA20), *range(0xE0000, 0xE0200))]
"""All that is not much of the same, such as the 90,000 ideographs."""
WORDS = ["the", "a", "dog", "on", "left", "red", "ball", "unaffable", "skateboarding", "Caf\u00e9", "na\u00efve"]
PIECES = [
    *"\u00e9\u00fc\u00df\u0130\u01c5\ufb01\u1e9e\u03a3\u03c2\u0391\u0301",
    "e\u0301",
    "a\u0323\u0302",
    "\u0344",
    "\u72d7",
    "\u5de6\u908a",
    "\uf900",
    "\U0002f800",
    "\ud55c\uad6d",
    "\U0001f436",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0001f1e9\U0001f1ea",
    "\u0915\u094d\u0937",
    "\u0e01\u0e33",
    "\u05e9\u05c1",
    "\u0639\u0651",
    *"\x00\x07\x0b\x1b\x7f\x85\xad\u200b\u2028\u3000\ufeff\ufffd\U000e0001\ue000\u0378",
    *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\u00a1\u00ab\u2014\u201c\u2026\u3001\uff01",
    "[MASK]",
    "[CLS]",
    " [SEP] ",
    "[mask]",
    "##ing",
    "don't",
    "x" * 101,
]


def expressions(count: int) -> list[str]:
    """Sentences of words, odd pieces and any characters at all."""
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
            elif kind < 0.9:
                parts.append("".join(chance.choice(EVERY[:0x3000]) for _ in range(chance.randint(1, 6))))
            else:
                parts.append("".join(chance.choice(EVERY) for _ in range(chance.randint(1, 4))))
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


def test_all_kinds_of_characters(probe: Probe, tmp_path: Path) -> None:
    """A vocabulary of single characters shows what each one became, where the real one would say [UNK]."""
    words = {word: i for i, word in enumerate(["[UNK]", "[CLS]", "[SEP]"])}
    for char in ODD:
        for made in {*unicodedata.normalize("NFD", char), char, char.lower()}:
            if not made.isspace():
                words.setdefault(made, len(words))
                words.setdefault(f"##{made}", len(words))
    for name, flags in {"uncased": {}, "cased": {"lowercase": False}, "accents": {"strip_accents": False}}.items():
        tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(**flags)  # type: ignore[arg-type]
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
        tokenizer.save(str(tmp_path / f"{name}.json"))
        # Sixteen characters a line, marks beside marks: canonical ordering has something to do.
        texts = ["a" + "".join(ODD[start : start + 16]) for start in range(0, len(ODD), 16)]
        chance = random.Random(3)
        marks = [char for char in EVERY if 0x300 <= ord(char) < 0x370 or 0x1D165 <= ord(char) < 0x1D16E]
        texts += ["a" + "".join(chance.choices([*marks, *EVERY[0x590:0x1100]], k=8)) for _ in range(1000)]
        compare(probe, tmp_path / f"{name}.json", texts)


def test_added_tokens(probe: Probe, tmp_path: Path) -> None:
    document = json.loads(TOKENIZER.read_text(encoding="utf-8"))
    extra = {"single_word": False, "lstrip": True, "rstrip": True, "normalized": False, "special": True}
    size, blue = len(document["model"]["vocab"]), document["model"]["vocab"]["blue"]
    document["added_tokens"] += [
        {"id": size, "content": "<a>", **extra},
        {"id": size + 1, "content": "<a><b>", **extra, "rstrip": False},
        {"id": blue, "content": "blue", **extra, "normalized": True, "special": False, "lstrip": False},
    ]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    texts = ["the  <a>  dog", "<a><b>", "x<a><a> <b>", "BLUE bluebird", "a blue  <a> blue", "<a", " <a><b> [MASK]"]
    compare(probe, path, texts)


def test_queries_are_refused_with_the_same_sentences(probe: Probe) -> None:
    queries = [
        "  the\tdog \n on\u3000the left\x1f ",
        "",
        " \u2003\x1c ",
        "x" * 101,
        "short " + "\U0001f436" * 101 + " tail that is cut",
        "a \ud800 dog",
        'it\'s a "quoted" \udcff\t\x07\u00e9\U0001f436 one',
        "don't \udfff",
        "a very long sentence of which only the beginning is shown here \ud912",
        "\x00",
        "plain",
    ]
    expected = []
    for query in queries:
        try:
            expected.append(check_queries([query])[0])
        except UserError as error:
            expected.append(str(error))
    assert probe("queries", data=hexadecimal(queries)).decode().split("\n")[:-1] == expected
