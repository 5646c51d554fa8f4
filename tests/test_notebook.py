"""The notebook's cells run in their order, and it is kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.tiny_bundle import write_tiny_bundle

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "first_steps.ipynb"
CELLS = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def _run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    pytest.importorskip("PIL", reason="the notebook shows pictures with Pillow")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RVOS_EDGE_CACHE", str(folder / "cache"))
    names: dict[str, object] = {"__name__": "notebook"}
    for number, cell in enumerate(CELLS):
        exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, code cell {number}", "exec"), names)
    return names


def test_it_holds_no_outputs() -> None:
    assert len(CELLS) >= 4
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CELLS)


@pytest.mark.filterwarnings("ignore:.*cannot read")
def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = write_tiny_bundle(tmp_path / "tiny", teach=True, presence=True)
    monkeypatch.setattr("rvos_edge.catalogue.shipped_bundle", lambda: tiny)
    _run(tmp_path, monkeypatch)
    assert (tmp_path / "helmet.query").is_file()


@pytest.mark.slow
def test_the_shipped_bundle_finds_what_the_notebook_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = _run(tmp_path, monkeypatch)
    helmet, woman = names["result"].masks  # type: ignore[attr-defined]
    shown = names["mask"] > 0  # type: ignore[operator]
    assert (helmet & shown).sum() > 0.5 * (helmet | shown).sum()
    assert woman.any()
