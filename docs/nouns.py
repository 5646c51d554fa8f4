"""Make ``rvos_edge/nouns.json``, nouns and their kinds, from the files of WordNet.

They are those of Debian's package ``wordnet-base``; WordNet's licence goes into the file::

    python docs/nouns.py --dict /usr/share/wordnet --output rvos_edge/nouns.json

WordNet's hypernyms are mostly words of biology and philosophy ("carnivore", "instrumentality"). Those that people say
are listed in ``nouns.yaml``, and every noun is filed under the nearest of them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from torchvision.models import resnet

from rvos_edge.atomic import new_file
from rvos_edge.errors import UserError

_LISTS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("nouns.yaml").read_text(encoding="utf-8"))
_CLASSES: dict[str, str] = _LISTS["classes"]


@dataclass(frozen=True)
class _Entry:
    """A word of the lists: "name=lemma<hypernym>kind"."""

    name: str
    lemma: str
    hypernym: str
    kind: str

    @classmethod
    def parse(cls, text: str) -> _Entry:
        match = re.fullmatch(r"([^=<>]+)(=?)([^<>]*)(?:<([^>]+))?(?:>(.+))?", text.replace("_", " "))
        assert match is not None
        name, renamed, lemma, hypernym, kind = match.groups()
        return cls(name, lemma if renamed else name, hypernym or "physical entity", kind or "")


@dataclass(frozen=True)
class Synset:
    """One meaning of a noun.

    Attributes:
        counts: how often each lemma has this meaning in WordNet's tagged texts.
        instance: it is one person or place, not a kind.
    """

    lemmas: tuple[str, ...]
    parents: tuple[int, ...]
    counts: tuple[int, ...]
    instance: bool


class WordNet:
    """The nouns of WordNet's database files.

    Raises:
        UserError: one of them is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.senses = {row[0].replace("_", " "): _offsets(row) for row in self._rows("index.noun")}
        self.words = set(self.senses).union(*({row[0] for row in self._rows(f"index.{p}")} for p in ("adj", "verb")))
        counts = {row[0]: int(row[2]) for row in self._rows("cntlist.rev")}
        self.synsets = {int(row[0]): _parse_synset(row, counts) for row in self._rows("data.noun")}

    def _rows(self, name: str) -> list[list[str]]:
        try:
            lines = (self.folder / name).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise UserError(f"{self.folder} has no {name}; install Debian's wordnet-base and give --dict") from error
        return [line.split(" | ")[0].split() for line in lines if not line.startswith("  ")]

    @cached_property
    def plurals(self) -> dict[str, str]:
        """Irregular plurals, each with its singular."""
        return {row[0].replace("_", " "): row[1].replace("_", " ") for row in self._rows("noun.exc")}

    def ancestors(self, offset: int) -> list[int]:
        """A synset and its hypernyms of all paths, nearest first."""
        found, queue = [], [offset]
        while queue:
            one = queue.pop(0)
            if one not in found:
                found.append(one)
                queue += self.synsets[one].parents
        return found

    def find(self, entry: _Entry) -> int | None:
        """The synset that an entry speaks of; None where there is none."""
        for offset in self.senses.get(entry.lemma, ()):
            above = {name for one in self.ancestors(offset)[1:] for name in self.synsets[one].lemmas}
            if not self.synsets[offset].instance and entry.hypernym in above:
                return offset
        return None

    def is_plain(self, lemma: str) -> bool:
        """True if a lemma is a singular of English words, and not the Latin name of a species."""
        parts = re.split(r"[ -]", lemma)
        plural = len(lemma) > 4 and lemma.endswith("s") and lemma[:-1] in self.senses
        return all(part in self.words for part in parts) and len({*parts}) == len(parts) and not plural

    def imagenet(self, names: Sequence[str]) -> list[int]:
        """The synsets of ImageNet's classes, of which only the first lemma is known.

        The classes are sorted by the offsets of their synsets, so of each name's meanings the one is taken that lets
        the whole list ascend (the most names, then the most that are their synset's usual word).
        """
        best: list[tuple[float, int, int, int]] = []  # score, offset, place, index of the entry before
        for place, name in enumerate(names):
            entry = _Entry.parse(_CLASSES.get(name, name.lower()))
            known = [self.find(entry)] if name in _CLASSES else self.senses.get(entry.lemma, ())
            for offset in filter(None, known):
                usual = self.synsets[offset].lemmas[0] == name.lower()
                before = max(
                    (i for i, one in enumerate(best) if one[1] < offset and one[2] < place),
                    key=lambda i: best[i][0],
                    default=-1,
                )
                best.append(
                    (
                        (best[before][0] if before >= 0 else 0) + 1 + 0.1 * usual,
                        offset,
                        place,
                        before,
                    )
                )
        at, out = max(range(len(best)), key=lambda i: best[i][0]), {}
        while at >= 0:
            out[best[at][2]] = best[at][1]
            at = best[at][3]
        if len(out) != len(names):
            raise UserError(f"WordNet lacks {[n for i, n in enumerate(names) if i not in out]}; take that of Debian")
        return [out[place] for place in range(len(names))]


class _Table:
    """The rows of the file: words and hypernym of each meaning."""

    def __init__(self, wordnet: WordNet) -> None:
        self.wordnet = wordnet
        self.words: list[list[str]] = []
        self.offsets: list[int | None] = []
        self.kinds: dict[int, str] = {}  # of rows that are filed by hand
        self.row: dict[int, int] = {}  # synset -> row

    def add(self, offset: int | None, words: Sequence[str]) -> int:
        """Add a meaning, or words to one that is there; its row."""
        row = len(self.words) if offset is None else self.row.setdefault(offset, len(self.words))
        if row == len(self.words):
            self.words.append([])
            self.offsets.append(offset)
        self.words[row] += [word for word in words if word not in self.words[row]]
        return row

    def add_entry(self, entry: _Entry) -> int:
        """Add what an entry of the lists speaks of."""
        offset = self.wordnet.find(entry)
        if offset is None and not (entry.kind and not entry.lemma):
            raise UserError(f"WordNet has no '{entry.name}' as meant here; take that of Debian")
        plain = [] if offset is None else self.plain(offset)
        row = self.add(offset, list(dict.fromkeys(_LISTS["only"].get(entry.name, (entry.name, *plain)))))
        if entry.kind:
            self.kinds[row] = entry.kind
        return row

    def plain(self, offset: int) -> list[str]:
        """The English words of a synset."""
        return [lemma for lemma in self.wordnet.synsets[offset].lemmas if self.wordnet.is_plain(lemma)]

    def parents(self, kinds: int) -> list[int]:
        """The row of each row's nearest kind, -1 where there is none; the kinds are the first rows."""
        names = {self.words[row][0]: row for row in range(kinds)}
        out = []
        for row, offset in enumerate(self.offsets):
            higher = [] if offset is None else [self.row.get(o, kinds) for o in self.wordnet.ancestors(offset)[1:]]
            nearest = next((one for one in higher if one < kinds), -1)
            out.append(names[self.kinds[row]] if row in self.kinds else nearest)
        return out


def build(wordnet: WordNet, names: Sequence[str]) -> dict[str, object]:
    """The contents of ``nouns.json``; ``names`` are those of ImageNet's classes."""
    table = _Table(wordnet)
    kinds = len([table.add_entry(_Entry.parse(text)) for text in _LISTS["kinds"]])
    entries = [_Entry.parse(text) for text in _LISTS["categories"]]
    categories = {entry.name: table.add_entry(entry) for entry in entries}
    said = {row for name, row in categories.items() if name != "mouse"}  # alone, it is the animal
    imagenet = [
        table.add(offset, list(dict.fromkeys((_called(name), *table.plain(offset)))))
        for offset, name in zip(wordnet.imagenet(names), names, strict=True)
    ]
    _add_common(table, kinds)
    return {
        "kinds": kinds,
        "nouns": [",".join(row) for row in table.words],
        "parents": table.parents(kinds),
        "categories": categories,
        "imagenet": imagenet,
        "senses": _senses(table, said),
        "plurals": _plurals(wordnet, table.words),
    }


def _add_common(table: _Table, kinds: int) -> None:
    """Further nouns that people say: words whose usual meaning is a thing of one of the kinds."""
    wordnet = table.wordnet
    all_kinds = {offset for offset in table.offsets[:kinds] if offset is not None}
    pairs = {table.offsets[row] for row in range(kinds) if table.words[row][0] in _LISTS["pairs"]}
    singles = {table.offsets[row] for row in range(kinds) if table.words[row][0] in _LISTS["singles"]}
    for offset, synset in wordnet.synsets.items():
        ancestors = set(wordnet.ancestors(offset))
        if synset.instance or offset in table.row or not all_kinds & ancestors:
            continue
        longest = 2 if pairs & ancestors else 1 if singles & ancestors else 0
        words = [
            lemma
            for lemma, count in zip(synset.lemmas, synset.counts, strict=True)
            if wordnet.senses[lemma][0] == offset and wordnet.is_plain(lemma)
            and len(lemma.split()) <= (2 if count else longest)
        ]  # fmt: skip
        if words:
            table.add(offset, words)


def _senses(table: _Table, categories: set[int]) -> dict[str, int]:
    """Row of a word with several meanings: that of a category, else the one WordNet lists first."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, words in enumerate(table.words):
        for word in words:
            rows[word].append(row)
    out = {}
    for word, found in rows.items():
        if len(found) > 1:
            order = {offset: rank for rank, offset in enumerate(table.wordnet.senses.get(word, ()))}
            out[word] = min(
                found,
                key=lambda row: (row not in categories, order.get(table.offsets[row] or -1, 99)),
            )
    return out


def _plurals(wordnet: WordNet, rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """Irregular plurals of nouns in the file."""
    last = {word.split()[-1] for row in rows for word in row}
    return {many: one for many, one in wordnet.plurals.items() if one in last and many not in last}


def _called(name: str) -> str:
    """The word for a class of ImageNet."""
    return _Entry.parse(_CLASSES.get(name, name.lower())).lemma


def _offsets(row: Sequence[str]) -> tuple[int, ...]:
    return tuple(int(value) for value in row[-int(row[2]) :])


def _parse_synset(row: Sequence[str], counts: dict[str, int]) -> Synset:
    size = int(row[3], 16)
    words = [(row[4 + 2 * i], int(row[5 + 2 * i], 16)) for i in range(size)]
    start = 4 + 2 * size
    pointers = [row[start + 1 + 4 * i : start + 5 + 4 * i] for i in range(int(row[start]))]
    keys = [f"{word.lower()}%1:{row[1]}:{number:02d}::" for word, number in words]
    return Synset(
        lemmas=tuple(word.replace("_", " ").lower() for word, _ in words),
        parents=tuple(int(target) for kind, target, part, _ in pointers if kind in ("@", "@i") and part == "n"),
        counts=tuple(counts.get(key, 0) for key in keys),
        instance=any(kind == "@i" for kind, *_ in pointers),
    )


def _notice(folder: Path) -> list[str]:
    """The licence that opens every file of the database."""
    lines = (folder / "data.noun").read_text(encoding="utf-8").splitlines()
    return [re.sub(r"^ *[0-9]+ ?", "", line).rstrip() for line in lines if line.startswith("  ")]


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--dict",
        type=Path,
        default=Path("/usr/share/wordnet"),
        help="the folder of WordNet's files",
    )
    parser.add_argument("--output", type=Path, default=Path("rvos_edge/nouns.json"))
    options = parser.parse_args()
    wordnet = WordNet(options.dict)
    names = list(resnet.ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    content = {"notice": _notice(options.dict), **build(wordnet, names)}
    with new_file(options.output) as part:
        part.write_text(json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{options.output}: {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
