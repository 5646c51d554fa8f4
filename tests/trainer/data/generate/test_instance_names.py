"""Narrower names that agree with the annotated category."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rvos_edge.errors import UserError
from rvos_edge.nouns import load_nouns
from rvos_edge.trainer.data.generate.instance_names import agreed_names, read_names

COLLIE, BORDER_COLLIE, BOXER, TABBY, FOX_SQUIRREL, SPORTS_CAR = 231, 232, 242, 281, 335, 817


def seen(**shares: float) -> np.ndarray:
    out = np.full(1000, (1 - sum(shares.values())) / 1000)
    for name, share in shares.items():
        out[globals()[name]] = share
    return out


def test_a_sure_class_below_the_category_gives_its_name_and_those_between() -> None:
    nouns = load_nouns()
    assert agreed_names(seen(TABBY=0.9), "cat", nouns)[0] == "tabby"
    assert agreed_names(seen(SPORTS_CAR=0.7), "car", nouns) == ["sports car"]
    assert agreed_names(seen(BOXER=0.9), "dog", nouns)[0] == "boxer dog", "alone, a boxer is a person"


def test_another_category_or_a_guess_gives_none() -> None:
    nouns = load_nouns()
    assert agreed_names(seen(COLLIE=0.9), "cat", nouns) == []
    assert "collie" not in agreed_names(seen(COLLIE=0.45, BORDER_COLLIE=0.45), "dog", nouns)
    assert agreed_names(seen(COLLIE=0.2), "dog", nouns) == [], "it rather sees something else"


def test_what_has_no_category_is_named_where_the_classifier_is_surest() -> None:
    nouns = load_nouns()
    assert agreed_names(seen(FOX_SQUIRREL=0.8), "object", nouns) == ["fox squirrel", "squirrel", "rodent", "animal"]
    assert agreed_names(seen(SPORTS_CAR=0.7), "object", nouns) == [], "it is less sure of vehicles"
    assert agreed_names(np.full(1000, 1e-3), "object", nouns) == []


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"names": {"7": ["tabby"]}}))
    assert read_names(path) == {7: ("tabby",)}
    path.write_text("[]")
    with pytest.raises(UserError, match="holds no names"):
        read_names(path)
    with pytest.raises(UserError, match="make them with"):
        read_names(tmp_path / "none.json")
