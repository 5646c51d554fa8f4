"""The Python of the README runs as it stands there, on a clip and a bundle of a few pixels."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import cv2
import pytest
from support.tiny_bundle import write_tiny_bundle

from rvos_edge.synthetic.camera import SyntheticCamera

README = Path(__file__).resolve().parents[1] / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2
    assert "rvos_edge.stream(" in "".join(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"example {number + 1}" for number in range(len(EXAMPLES))])
def test_example(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "supervision" in example:
        pytest.importorskip("supervision", reason="needs the extra 'supervision'")
    tiny = write_tiny_bundle(tmp_path / "my-bundle")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RVOS_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("rvos_edge.catalogue.shipped_bundle", lambda: tiny)
    writer = cv2.VideoWriter("clip.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (96, 64))
    for frame in itertools.islice(SyntheticCamera(seed=1, size=(64, 96)), 4):
        writer.write(frame.image)
    writer.release()
    for name in "abcd":
        cv2.imwrite(f"{name}.jpg", frame.image)
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(example, str(README), "exec"), names)
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) >= 4, "each example prints a line per frame"
