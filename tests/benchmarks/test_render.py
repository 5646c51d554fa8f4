"""The table in the README."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bench_results import make_result

from rvos_edge.atomic import write_output
from rvos_edge.benchmarks.render import BEGIN, END, file_name, render
from rvos_edge.benchmarks.schema import State, to_json
from rvos_edge.errors import UserError

TEXT = f"# Title\r\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter, no newline at the end"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A README with the markers, and two results beside it."""
    for number, times in enumerate(([10.0] * 4, [20.0] * 4)):
        result = make_result({"onnxruntime": times, "openvino": times})
        result = result.model_copy(update={"made": f"2026-02-0{number + 1}T00:00:00Z"})
        write_output(tmp_path / "benchmarks" / "results" / file_name(result), to_json(result))
    path = tmp_path / "README.md"
    path.write_text(TEXT, encoding="utf-8", newline="")
    return path


def test_table_stands_between_the_markers_and_the_rest_stays(page: Path) -> None:
    assert render(page) == 2
    text = page.read_bytes().decode()
    head, rest = text.split(BEGIN)
    table, tail = rest.split(END)
    assert (head, tail) == (TEXT.split(BEGIN)[0], TEXT.split(END)[1])
    lines = table.strip().splitlines()
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| Some Board (2026-02-02) | onnxruntime (cpu) | tiny, 64x96 | 1 | 20.0 / 20.0 / 20.0 |")


def test_twice_is_as_once(page: Path) -> None:
    render(page)
    before, stamp = page.read_bytes(), page.stat().st_mtime_ns
    render(page)
    assert (page.read_bytes(), page.stat().st_mtime_ns) == (before, stamp)


def test_row_of_a_busy_machine_says_so(page: Path) -> None:
    result = make_result({"onnxruntime": [10.0] * 4})
    busy = result.model_copy(update={"before": State(load_average=3.7)})
    write_output(page.parent / "benchmarks" / "results" / "busy.json", to_json(busy))
    render(page)
    text = page.read_text(encoding="utf-8")
    assert "| Some Board (2026-01-31, busy: load 3.7) |" in text
    assert text.count("busy") == 1


@pytest.mark.parametrize("text", ["no markers", f"{END}\n{BEGIN}", f"{BEGIN}\n{BEGIN}\n{END}", BEGIN])
def test_page_without_the_markers_is_left_alone(text: str, page: Path) -> None:
    page.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"README\.md must hold one line <!-- benchmarks:begin -->"):
        render(page)
    assert page.read_text(encoding="utf-8") == text
    assert sorted(path.name for path in page.parent.iterdir()) == ["README.md", "benchmarks"]


def test_damaged_result_is_named_and_the_page_stays(page: Path) -> None:
    (page.parent / "benchmarks" / "results" / "zz.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"zz\.json"):
        render(page)
    assert page.read_bytes().decode() == TEXT


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; measure with: rvos-edge bench --json"):
        render(tmp_path / "README.md")
