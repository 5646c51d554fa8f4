"""The two formats of expression files: JSON of Refer-YouTube-VOS, and the text files of DAVIS."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.base import GIVE_EXPRESSIONS, Query, few, tidy

# VIDEO OBJECT "EXPRESSION", with straight, curly or no quotation marks.
_LINE = re.compile(r'(\S+)\s+(\d+)\s+["“\x93]*(.*?)["”\x94]*')
_PREFIX = re.compile(r"^davis\d*_", re.IGNORECASE)
# Three videos are misspelt in the published text files.
_SPELLING = {"clasic-car": "classic-car", "dog-scale": "dogs-scale", "motor-bike": "motorbike"}


class MissingExpressionsError(UserError):
    """There is no file of expressions; one's own will do."""


@dataclass(frozen=True)
class Described:
    """Queries of a video and, where the file lists them, its frames."""

    queries: tuple[Query, ...]
    frames: tuple[str, ...] = ()


def read_expressions(path: Path, *, pattern: str = "*.txt") -> dict[str, Described]:
    """Read queries and frames of all videos from a file, or from the text files of a folder that match ``pattern``.

    JSON: ``videos/NAME/expressions/ID/{exp,obj_id}`` and ``videos/NAME/frames``; ``obj_id`` may be missing, as in the
    validation file of Refer-YouTube-VOS. The key of a query is the expression's ID.

    Text (Khoreva et al., "Video Object Segmentation with Language Referring Expressions", ACCV 2018): one
    ``video object_id "expression"`` per line, UTF-8 or Latin-1. The key is ``ANNOTATOR/OBJECT``, from the file's name:
    ``annot1/3`` for object 3 in Davis17_annot1.txt.

    Raises:
        UserError: The file does not exist or is of another format.
    """
    if path.is_dir():
        files = sorted(path.glob(pattern))
        if not files:
            raise UserError(f"the folder {path} holds no expressions: it needs {pattern}")
        parts = [_read_text(file) for file in files]
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: Described(tuple(q for part in parts for q in part.get(name, ()))) for name in names}
    if not path.is_file():
        raise MissingExpressionsError(f"the expressions {path} do not exist: {GIVE_EXPRESSIONS}")
    if path.suffix == ".txt":
        return {name: Described(queries) for name, queries in _read_text(path).items()}
    return _read_json(path)


def check_known(described: Mapping[str, Described], known: set[str], path: Path, where: Path) -> None:
    """Raise `UserError` when an expression file names videos that the data set does not have."""
    unknown = [video for video in described if video not in known]
    if unknown:
        raise UserError(
            f"the expressions {path} name {len(unknown)} of {len(described)} videos that {where} does not have "
            f"({few(unknown)}): add them or give the expressions of this data set"
        )


def check_ids(described: Mapping[str, Described], path: Path) -> None:
    """Raise `UserError` when an expression does not say which object it is about."""
    for video, entry in described.items():
        if any(query.object_id is None for query in entry.queries):
            raise UserError(f"the expressions {path} have no obj_id for '{video}': give a file that names the objects")


def _read_json(path: Path) -> dict[str, Described]:
    try:
        videos = json.loads(path.read_text(encoding="utf-8"))["videos"]
        return {
            str(video): Described(
                tuple(
                    Query(str(key), tidy(said["exp"]), int(said["obj_id"]) if "obj_id" in said else None)
                    for key, said in entry["expressions"].items()
                ),
                tuple(str(name) for name in entry.get("frames", ())),
            )
            for video, entry in videos.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not an expressions file: it needs videos/NAME/expressions/ID/exp,obj_id") from error


def _read_text(path: Path) -> dict[str, tuple[Query, ...]]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    annotator = _PREFIX.sub("", path.stem)
    found: dict[str, list[Query]] = {}
    seen: Counter[str] = Counter()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or not match[3].strip():
            raise UserError(f'{path}, line {number} is not of the form: video object_id "expression"')
        video = _SPELLING.get(match[1], match[1])
        key = f"{annotator}/{int(match[2])}"
        seen[f"{video} {key}"] += 1
        again = seen[f"{video} {key}"]
        key = key if again == 1 else f"{key}.{again}"
        found.setdefault(video, []).append(Query(key, tidy(match[3]), int(match[2])))
    if not found:
        raise UserError(f'{path} is empty: it needs lines of the form: video object_id "expression"')
    return {video: tuple(queries) for video, queries in found.items()}
