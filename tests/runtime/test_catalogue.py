"""Bundles by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.tiny_bundle import write_tiny_bundle
from typer.testing import CliRunner

import rvos_edge
from rvos_edge.bundle import shipped_bundle
from rvos_edge.catalogue import find_bundle, list_bundles
from rvos_edge.cli import app


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders of the variable, `a` with the bundle tiny and `b` with nothing, and the user's with mine and tiny."""
    write_tiny_bundle(tmp_path / "a" / "tiny")
    (tmp_path / "b").mkdir()
    for name in ("mine", "tiny"):
        write_tiny_bundle(tmp_path / "data" / "rvos-edge" / "bundles" / name)
    monkeypatch.setenv("RVOS_EDGE_BUNDLES", os.pathsep.join(str(tmp_path / name) for name in ("b", "a", "missing")))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def test_names_come_from_the_variable_then_the_user_then_the_package(folders: Path) -> None:
    assert list_bundles() == {
        "tiny": folders / "a" / "tiny",
        "mine": folders / "data" / "rvos-edge" / "bundles" / "mine",
        "edge": shipped_bundle(),
    }


def test_a_name_opens_as_its_folder_does(folders: Path) -> None:
    segmenter = rvos_edge.open("mine", backend="onnxruntime", threads=1)
    assert segmenter.bundle.path == folders / "data" / "rvos-edge" / "bundles" / "mine"
    with pytest.raises(rvos_edge.UserError, match="nothing is not a bundle"):
        rvos_edge.open("nothing")


def test_a_bundle_in_the_working_directory_counts_more_than_a_name(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edge").mkdir()
    assert find_bundle("edge") == shipped_bundle()  # a folder, but no bundle
    write_tiny_bundle(tmp_path / "mine")
    assert find_bundle("mine") == Path("mine")
    assert find_bundle("./tiny") == Path("tiny")  # no name: it has a folder


def test_the_list_says_size_quality_and_licences(folders: Path) -> None:
    shown = CliRunner().invoke(app, ["bundles"]).output
    assert [line.partition(":")[0] for line in shown.splitlines() if line[0] != " "] == ["tiny", "mine", "edge"]
    assert "288x512, J " in shown
    assert "licences: DAVIS 2016" in shown
    assert str(shipped_bundle()) in shown


def test_commands_take_names(folders: Path) -> None:
    for command in ("inspect", "verify"):
        done = CliRunner().invoke(app, [command, "mine", *(["--no-write"] if command == "verify" else [])])
        assert "mine is not a bundle" not in done.output
    done = CliRunner().invoke(
        app, ["run", "synthetic", "a dog", "--frames", "1", "--bundle", "mine", "--json", "-", "-q"]
    )
    assert done.exit_code == 0, done.output
