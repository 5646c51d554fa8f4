"""The demo: two photographs that a camera moves over, asked by three sentences, one of which names nothing there."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rvos_edge.atomic import PendingFile
from rvos_edge.outputs import mark_png
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.result import Result
from rvos_edge.streaming.loop import Meter, Summary, run_stream
from rvos_edge.streaming.overlay import contact_sheet
from rvos_edge.streaming.sinks import Sink, VideoSink, open_sinks
from rvos_edge.streaming.sources import ASSUMED_FPS, Frame, open_source
from rvos_edge.streaming.status import Status, finding_lines

CLIP = Path(__file__).parent / "demo.mp4"
"""Made by docs/demo_clip.py of photographs without restrictions."""
QUERIES = ("a cat with green eyes", "a woman in an orange suit", "a bus")
_SHEET_FRAMES, _SHEET_COLUMNS, _SHEET_WIDTH = 8, 4, 512


def run_demo(
    segmenter: SegmenterProtocol,
    output_dir: str | Path,
    *,
    frames: int | None = None,
    quiet: bool = False,
    console: Console | None = None,
) -> Summary:
    """Segment the clip that comes with the package, and write `demo.mp4` and `demo.png`, both or neither.

    Args:
        segmenter: The segmenter; its queries are replaced.
        frames: Stop after so many, None for all 90.

    Raises:
        UserError: The folder cannot be written.
    """
    folder, meter = Path(output_dir), Meter()
    sheet, video = folder / "demo.png", folder / "demo.mp4"
    console = console or Console(quiet=quiet)
    console.print(f"{segmenter.backend_name} because {segmenter.backend_reason}.", soft_wrap=True, highlight=False)
    with open_source(str(CLIP)) as source:
        count = min(frames or source.length or 1, source.length or 1)
        with (
            open_sinks([lambda: SheetSink(sheet, count), lambda: VideoSink(video, source.fps or ASSUMED_FPS)]) as sinks,
            Status(source, meter, backend=segmenter.backend_name, frames=frames, hidden=quiet) as on_result,
        ):
            segmenter.set_queries(QUERIES)
            summary = run_stream(
                segmenter,
                source,
                sinks,
                frames=frames,
                on_result=on_result,
                keep_partial=False,
                meter=meter,
                pipelined=True,
            )
    for line in finding_lines(summary, presence=segmenter.bundle.manifest.has_presence):
        console.print(line, highlight=False)
    console.print(
        f"{summary.fps:.1f} frames per second, drawing and encoding included.\n"
        f'Wrote {video} and {sheet}. Try a clip of your own: rvos-edge run clip.mp4 "a dog"',
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    return summary


class SheetSink(Sink):
    """Collects a few evenly spaced overlays and writes them as one picture."""

    wants_overlay = True

    def __init__(self, path: Path, frames: int) -> None:
        self._file = PendingFile(path)
        self._wanted = {round(position) for position in np.linspace(0, frames - 1, min(_SHEET_FRAMES, frames))}
        self._images: list[NDArray[np.uint8]] = []
        self._captions: list[str] = []

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        if overlay is None or frame.index not in self._wanted:
            return
        height, width = overlay.shape[:2]
        if width > _SHEET_WIDTH:
            small = (_SHEET_WIDTH, round(height * _SHEET_WIDTH / width))
            overlay = np.asarray(cv2.resize(overlay, small, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        self._images.append(overlay)
        self._captions.append(f"frame {frame.index}")

    def close(self) -> None:
        _, content = cv2.imencode(".png", contact_sheet(self._images, _SHEET_COLUMNS, self._captions))
        self._file.partial.write_bytes(mark_png(content.tobytes()))
        self._file.commit()

    def abort(self) -> None:
        self._file.discard()
