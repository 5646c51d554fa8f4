"""Training configurations to read: those that come with the package, and one with all its keys and their meaning."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from rvos_edge.trainer.config import Config

_WIDTH = 100


def shipped_configs() -> dict[str, str]:
    """Purposes of the configurations that come with the package, by name: the first sentence of each file."""
    found = {}
    for file in sorted((Path(__file__).parent / "configs").glob("*.yaml")):
        comment: list[str] = []
        for line in file.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            comment.append(line.removeprefix("#").strip())
        found[file.stem] = re.split(r"[.:;](?: |$)", " ".join(comment))[0] + "."
    return found


def as_yaml(config: Config) -> str:
    """A configuration as YAML that ``load_config`` reads, with every key and its comment."""
    return "\n".join(_lines(config, "")) + "\n"


def _lines(config: BaseModel, indent: str) -> Iterator[str]:
    comments = _comments(type(config))
    for name in type(config).model_fields:
        value = getattr(config, name)
        comment = " ".join(comments.get(name, "").split()).replace("``", "")
        yield from textwrap.wrap(comment, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:"
            yield from _lines(value, f"{indent}  ")
        elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
            yield f"{indent}{name}:"
            for item in value:
                first, *others = _lines(item, f"{indent}  ")
                yield f"{indent}-{first.removeprefix(indent)[1:]}"
                yield from others
        else:
            yield f"{indent}{name}: {_flow_style(value)}"


def _flow_style(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _comments(kind: type[BaseModel]) -> dict[str, str]:
    """Docstrings of the fields of a model and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[node.target.id] = str(after.value.value)
    return found
