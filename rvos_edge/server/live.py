"""A stream that can be watched and steered while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.server.address import ServerOptions
from rvos_edge.server.broadcast import Hub, PageSink
from rvos_edge.server.controls import LiveSegmenter, ServerControls
from rvos_edge.server.player import Choice, Player
from rvos_edge.server.recorder import Recorder
from rvos_edge.server.single_image import SingleImages
from rvos_edge.server.taught import TaughtQueries
from rvos_edge.server.telemetry import Telemetry
from rvos_edge.server.uploads import Library
from rvos_edge.streaming.loop import Meter
from rvos_edge.streaming.overlay import query_colour
from rvos_edge.streaming.sources import Source


class Live:
    """A stream with everything that the page and the API read and change; the streaming loop runs it.

    Args:
        source: The opened source that plays first; the caller closes it.
        reopen: Opens that source from its start again.
        stills: Opens another segmenter, without flow, for single pictures.
        meter: The meter of the loop that runs the stream, for its health.

    Attributes:
        pages: Number of pages that are connected.
        page: Options of the server, with the port, once there is one.
        drawing: Snapshots that may be drawn at a time; each takes the memory of several pictures.
    """

    def __init__(
        self,
        segmenter: SegmenterProtocol,
        source: Source,
        *,
        reopen: Callable[[], Source],
        stills: Callable[[], SegmenterProtocol],
        repeat: bool = True,
        opacity: float = 0.5,
        meter: Meter | None = None,
    ) -> None:
        self.bundle, self.backend = segmenter.bundle.manifest.name, segmenter.backend_name
        self._has_presence = segmenter.bundle.manifest.has_presence
        self.controls = ServerControls(segmenter, opacity=opacity)
        self.segmenter = LiveSegmenter(segmenter, self.controls)
        first = Choice("start", source.name, reopen)
        self.library = Library(first)
        self.player = Player(first, source, self.controls, restarted=self.segmenter.reset, repeat=repeat)
        self.hub = Hub()
        self.page: ServerOptions | None = None
        self.pages = 0
        self.drawing = asyncio.Semaphore(2)
        self.telemetry = Telemetry(lambda: self.hub.viewers)
        self.meter = meter or Meter()
        self.recorder = Recorder(self.library.folder)
        self.single_images = SingleImages(stills)
        self.taught = TaughtQueries(self.controls, segmenter.bundle)
        self.sink = PageSink(self.controls, self.player, self.telemetry, self.recorder, self.hub)

    def close(self) -> None:
        """Stop playing, finish a recording and remove the temporary folder; a second call does nothing."""
        self.player.close()
        self.taught.close()
        self.sink.close()
        self.library.close()

    def query_rows(self) -> list[dict[str, Any]]:
        """The wanted queries with their colours, and with scores where the last frame has them."""
        known = {row["text"]: row for row in self.telemetry.objects}
        rows = []
        wanted = self.controls.wanted
        for index, (text, doubt) in enumerate(zip(wanted.queries, self.controls.doubts(wanted.asked), strict=True)):
            row = known.get(text.removeprefix("@"), dict.fromkeys(("score", "area", "presence", "found", "adapted")))
            if not self._has_presence:
                row = {**row, "presence": row["score"]}
            label = wanted.settings.labels.get(text, "")
            rows.append({**row, "text": text, "label": label, "colour": _css(query_colour(index)), "doubt": doubt})
        return rows

    def source_rows(self) -> list[dict[str, Any]]:
        """Every source that can be played."""
        choices, playing = self.library.choices, self.player.choice
        if playing.id not in {known.id for known in choices}:
            choices = (*choices, playing)
        return [{"id": known.id, "name": known.name, "uploaded": known.uploaded} for known in choices]

    @property
    def state(self) -> str:
        """State in one word: "starting", "playing", "photo", "paused" or "waiting"."""
        if self.player.camera_trouble:
            return "waiting"
        if self.controls.wanted.settings.paused:
            return "paused"
        if not self.telemetry.frames:
            return "starting"
        return "photo" if self.player.still else "playing"

    def status(self) -> dict[str, Any]:
        """Everything that the page shows, as JSON."""
        wanted, player, recording = self.controls.wanted, self.player, self.recorder.state
        return {
            "state": self.state,
            "trouble": player.camera_trouble or self.controls.error or self.taught.trouble,
            "revision": wanted.revision,
            "shown": self.controls.shown.revision,
            "queries": self.query_rows(),
            "settings": wanted.settings.model_dump(),
            "source": player.choice.id,
            "live": player.live,
            "position": round(player.position, 3),
            "seconds": None if player.seconds is None else round(player.seconds, 3),
            "examples": list(player.choice.examples),
            "sources": self.source_rows(),
            "recording": {
                "running": recording.running,
                "seconds": round(recording.seconds, 1),
                "files": list(recording.files),
                "trouble": recording.trouble,
            },
            "teaches": self.taught.possible,
            "learning": self.taught.learning,
            "taught": self.taught.rows(),
            "viewers": self.hub.viewers,
            "bundle": self.bundle,
            "backend": self.backend,
            **self.telemetry.summary(),
        }


def _css(bgr: tuple[int, int, int]) -> str:
    return f"#{bgr[2]:02x}{bgr[1]:02x}{bgr[0]:02x}"
