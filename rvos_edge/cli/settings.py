"""Options of ``rvos-edge run`` in a YAML file: ``--config`` and ``--save-config``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from rvos_edge.atomic import write_output
from rvos_edge.cli.options import RunOptions
from rvos_edge.errors import UserError
from rvos_edge.outputs import YAML_MARK
from rvos_edge.server.address import DEFAULT_HOST

_Options = TypedDict("_Options", get_type_hints(RunOptions), total=False)  # type: ignore[misc]
_Options.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[attr-defined]
_OPTIONS: TypeAdapter[Any] = TypeAdapter(_Options)
_File = TypedDict("_File", {**get_type_hints(RunOptions), "cameras": dict[str, _Options]}, total=False)  # type: ignore
_File.__pydantic_config__ = _Options.__pydantic_config__  # type: ignore[attr-defined]
_FILE: TypeAdapter[Any] = TypeAdapter(_File)
_SHARED = {"bundle", "size", "device", "backend", "threads", "runtime", "quiet"}
_SHARED |= {"serve", "token", "base_path", "allow_origin", "certificate"}
"""Options of the process, its one model and its one server."""
_RECORDED = ("output", "cutout", "mask_video", "json", "rle", "events")
_ROUTES = {"api", "metrics", "page", "session"}
_NOT_SAVED = {"token", "quiet", "verbose"}
"""A secret, and what is of one terminal."""


def load_options(path: Path) -> dict[str, Any]:
    """Read options from a YAML file, by their names on the command line with _ for -.

    Raises:
        UserError: The file cannot be read, an option is unknown, or its value has another type.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        _FILE.validate_json(json.dumps(values))
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}; give a YAML file.") from error
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "the file"
        if first["type"] == "extra_forbidden":
            raise UserError(f"--config {path}: there is no option '{name}'; 'rvos-edge run -h' lists them.") from error
        raise UserError(f"--config {path}: {name}: {first['msg'].lower()}; mend it.") from error
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise UserError(f"--config {path} is no YAML file of options; write one with --save-config.") from error
    return {name: value for name, value in values.items() if value is not None}


def camera_options(given: Mapping[str, Any], cameras: Mapping[str, Mapping[str, Any]]) -> dict[str, RunOptions]:
    """The options of several cameras by name: those of the command, and over them each camera's own.

    Raises:
        UserError: There is no camera, a name cannot be part of an address, an option belongs to all cameras, or is out
            of range.
    """
    if not cameras:
        raise UserError("--config has cameras and names none; give each a name and a source.")
    options = {}
    for name, own in cameras.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name in _ROUTES:
            raise UserError(f"the camera '{name}' needs another name: letters, digits, '-' and '_', and not a route's.")
        if shared := sorted(own.keys() & _SHARED):
            raise UserError(f"{shared[0]} is for all cameras and cannot be {name}'s own; write it above them.")
        try:
            checked = _OPTIONS.validate_json(json.dumps(own))
            values = {**given, "serve": given["serve"] or DEFAULT_HOST, "wait": True, **checked}
            if not any(values[place] for place in _RECORDED):  # the segments of all are not for it
                values |= {"segment": checked.get("segment"), "keep": checked.get("keep")}
            options[name] = RunOptions(**values)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    return options


def save_options(path: Path, options: Mapping[str, Any]) -> None:
    """Write options as a YAML file that `load_options` reads; `_NOT_SAVED`, and options without a value, are left out.

    Raises:
        UserError: The file cannot be written, or is none of this program's.
    """
    import yaml

    shown = {name: value for name, value in options.items() if value is not None and name not in _NOT_SAVED}
    text = yaml.safe_dump(_OPTIONS.dump_python(shown, mode="json"), sort_keys=False, allow_unicode=True)
    write_output(path, f"{YAML_MARK} run --config {path.name}\n{text}")
