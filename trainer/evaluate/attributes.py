"""The attribute table of DAVIS-16: mean J over the videos of an attribute, beside the paper's row."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import yaml

from rvos_edge.errors import UserError
from rvos_edge.trainer.evaluate.scorers import Metrics, mean

_FACTS = yaml.safe_load(files("rvos_edge.trainer.data").joinpath("davis2016.yaml").read_text("utf-8"))["attributes"]
NAMES: dict[str, str] = {attribute: name for attribute, (name, _) in _FACTS.items()}
PAPER: dict[str, float] = {attribute: j for attribute, (_, j) in _FACTS.items()}
"""The paper's J on the 20 validation videos (supplement, section 3), by attribute."""


def find_attributes(root: Path) -> Path | None:
    """Path of the official db_info.yml in a DAVIS folder; None where there is none."""
    places = (root / "db_info.yml", root / "Annotations" / "db_info.yml", root / "Annotations" / "480p" / "db_info.yml")
    return next((path for path in places if path.is_file()), None)


def attribute_table(path: Path, regions: Mapping[str, float | None]) -> Metrics:
    """Mean J by attribute, of J by video and the official db_info.yml.

    Returns:
        ``official``: whether the videos are the 20 official validation videos, without which the paper's row does not
        compare; ``unlisted``: videos that the file does not list; ``rows``: by attribute ``j`` (None where no video has
        it), the number of ``videos``, and ``paper``.

    Raises:
        UserError: The file is damaged.
    """
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))["sequences"]
        attributes = {str(entry["name"]): {str(name) for name in entry["attributes"]} for entry in listed}
        official = {str(entry["name"]) for entry in listed if entry["set"] == "test"}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(
            f"{path} is not the list of DAVIS attributes; restore db_info.yml from the official data, or remove it."
        ) from error
    rows = {}
    for name, paper in PAPER.items():
        values = [value for video, value in regions.items() if name in attributes.get(video, ())]
        rows[name] = {"j": mean(values), "videos": len(values), "paper": paper}
    unlisted = [video for video in regions if video not in attributes]
    return {"official": set(regions) == official, "unlisted": unlisted, "rows": rows}
