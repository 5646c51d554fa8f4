"""Writes src/unicode_tables.inc: what the `tokenizers` package does to each code point, in compact tables.

    python tools/unicode_tables.py > src/unicode_tables.inc

The package is asked about all 1,112,064 of them, so that the C++ tokenizer agrees with it and not with some version of
Unicode: `tokenizers` itself mixes several. Takes about ten seconds.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import normalizers, pre_tokenizers

HANGUL = range(0xAC00, 0xD7A4)  # decomposed by arithmetic
CODE_POINTS = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def bert(**flags: bool) -> normalizers.BertNormalizer:
    """A normalizer that does one thing."""
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**{**off, **flags})


def ranges(codes: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of each run of neighbours."""
    found: list[tuple[int, int]] = []
    for code in codes:
        if found and found[-1][1] == code - 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return found


def combining_classes() -> list[tuple[int, int, int]]:
    """First, last and class of each run of characters that canonical ordering moves."""
    nfd = normalizers.NFD()
    highest = "\u0345"
    probes = {240: highest}
    for code in CODE_POINTS:
        order = unicodedata.combining(chr(code))
        # Python and `tokenizers` know different versions of Unicode: a probe must be known to both.
        if order and nfd.normalize_str(highest + chr(code)) == chr(code) + highest:
            probes.setdefault(order, chr(code))
    found: list[tuple[int, int, int]] = []
    for code in CODE_POINTS:
        char = chr(code)
        if nfd.normalize_str(char) != char:
            continue
        # Behind the highest class it moves forward, unless it is of the highest class or of none.
        if nfd.normalize_str(highest + char) == highest + char and char != highest:
            continue
        order = next(k for k in sorted(probes) if nfd.normalize_str(char + probes[k]) == char + probes[k])
        if found and found[-1][1] == code - 1 and found[-1][2] == order:
            found[-1] = (found[-1][0], code, order)
        else:
            found.append((code, code, order))
    return found


def lower_runs() -> list[tuple[int, int, int, int]]:
    """First, last, step and distance of each run of capitals; U+0130, which becomes two characters, is left out."""
    lower = bert(lowercase=True)
    found: list[tuple[int, int, int, int]] = []
    for code in CODE_POINTS:
        small = lower.normalize_str(chr(code))
        if len(small) != 1 or ord(small) == code:
            continue
        distance = ord(small) - code
        first, last, step, known = found[-1] if found else (0, 0, 0, 0)
        if distance == known and code - last in (1, 2) and (first == last or code - last == step):
            found[-1] = (first, code, code - last, distance)
        else:
            found.append((code, code, 1, distance))
    return found


def main() -> None:
    """Ask and print."""
    clean, chinese, strip = (bert(clean_text=True), bert(handle_chinese_chars=True), bert(strip_accents=True))
    nfd, split = normalizers.NFD(), pre_tokenizers.BertPreTokenizer()
    pieces = {code: [piece for piece, _ in split.pre_tokenize_str(f"a{chr(code)}a")] for code in CODE_POINTS}
    stripped = {code: strip.normalize_str(chr(code)) for code in CODE_POINTS if code not in HANGUL}
    changed = {code: text for code, text in stripped.items() if text != chr(code)}
    marks = [code for code, text in changed.items() if not text and nfd.normalize_str(chr(code)) == chr(code)]
    bases = {code: text for code, text in changed.items() if code not in set(marks)}
    single = [(code, ord(text)) for code, text in bases.items() if len(text) == 1]
    several = [(code, [*map(ord, text), *[0] * (4 - len(text))]) for code, text in bases.items() if len(text) != 1]

    print(f"// Written by tools/unicode_tables.py from tokenizers {tokenizers.__version__}; do not edit.")
    table("Range", "dropped", ranges(code for code in CODE_POINTS if not clean.normalize_str(chr(code))))
    table("Range", "whitespace", ranges(code for code in CODE_POINTS if pieces[code] == ["a", "a"]))
    table("Range", "punctuation", ranges(code for code in CODE_POINTS if pieces[code] == ["a", chr(code), "a"]))
    table("Range", "chinese", ranges(code for code in CODE_POINTS if len(chinese.normalize_str(chr(code))) == 3))
    table("Range", "marks", ranges(marks))
    table("Ordered", "combining", combining_classes())
    table("Run", "lower", lower_runs())
    table("Pair", "base", same_target(single))
    table("Bases", "bases", several)


def same_target(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """First, last and base of each run of neighbours with one base."""
    found: list[tuple[int, int, int]] = []
    for code, target in pairs:
        if found and found[-1][1] == code - 1 and found[-1][2] == target:
            found[-1] = (found[-1][0], code, target)
        else:
            found.append((code, code, target))
    return found


def braced(row: Sequence[int | Sequence[int]]) -> str:
    """A row as C++ writes it."""
    numbers = (f"{value:#x}" if value > 9 else str(value) for value in row if isinstance(value, int))
    inner = (braced(value) for value in row if not isinstance(value, int))
    return "{" + ",".join([*numbers, *inner]) + "}"


def table(kind: str, name: str, rows: Sequence[Sequence[int | Sequence[int]]]) -> None:
    """Print one table, in lines of at most 120 columns."""
    print(f"constexpr {kind} {name}[] = {{")
    line = ""
    for row in rows:
        item = braced(row) + ","
        if len(line) + len(item) > 120:
            print(line)
            line = ""
        line += item
    print(line)
    print("};")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit("usage: python tools/unicode_tables.py > src/unicode_tables.inc")
    main()
