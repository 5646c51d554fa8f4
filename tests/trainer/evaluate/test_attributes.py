"""The attribute table averages over the videos that share a difficulty, and says where the paper's row compares."""

from __future__ import annotations

from pathlib import Path

import pytest

from rvos_edge.errors import UserError
from rvos_edge.trainer.evaluate.attributes import NAMES, PAPER, attribute_table, find_attributes

INFO = """
attributes: [AC, LR, OV]
sequences:
- {attributes: [AC, OV], name: bear, set: training}
- {attributes: [AC, LR], name: cows, set: test}
- {attributes: [], name: goat, set: test}
"""


def write(tmp_path: Path, text: str = INFO) -> Path:
    path = tmp_path / "db_info.yml"
    path.write_text(text)
    return path


def test_the_mean_over_the_videos_that_carry_an_attribute(tmp_path: Path) -> None:
    table = attribute_table(write(tmp_path), {"bear": 0.4, "cows": 0.8, "zebra": 0.1})
    assert table["rows"]["AC"] == {"j": pytest.approx(0.6), "videos": 2, "paper": 0.851}
    assert table["rows"]["LR"] == {"j": 0.8, "videos": 1, "paper": 0.883}
    assert table["rows"]["OCC"] == {"j": None, "videos": 0, "paper": 0.847}
    assert list(table["rows"]) == list(PAPER) == list(NAMES)
    assert table["unlisted"] == ["zebra"]


def test_only_the_official_validation_videos_compare_with_the_paper(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert attribute_table(path, {"cows": 0.8, "goat": 0.2})["official"]
    assert not attribute_table(path, {"cows": 0.8})["official"]
    assert not attribute_table(path, {"cows": 0.8, "goat": 0.2, "bear": 0.4})["official"]


def test_the_file_is_found_where_the_official_data_has_it(tmp_path: Path) -> None:
    assert find_attributes(tmp_path) is None
    (tmp_path / "Annotations").mkdir()
    assert find_attributes(tmp_path) is None
    path = write(tmp_path / "Annotations")
    assert find_attributes(tmp_path) == path


@pytest.mark.parametrize("text", ["sequences: 3", "[", "sequences:\n- {name: bear}"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"db_info\.yml"):
        attribute_table(write(tmp_path, text), {})


def test_the_real_file_lists_the_official_twenty(shared: Path) -> None:
    table = attribute_table(shared / "data/davis2016-train/db_info.yml", {"bear": 0.5, "bmx-bumps": 0.25})
    assert not table["official"]
    assert table["rows"]["DEF"] == {"j": 0.5, "videos": 1, "paper": 0.837}
    assert table["rows"]["FM"] == {"j": 0.25, "videos": 1, "paper": 0.826}
