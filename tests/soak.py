"""Eight hours of a camera that dies and returns, in minutes: `python tests/soak.py --hours 8 --losses 200`.

The served stream is the real one, on the tiny bundle; the camera gives its frames as fast as they are taken, dies every
so many, and is there again with another size. Viewers come and go meanwhile, and the recording is cut into segments.
Memory and handles are compared between a fifth of the way and the end.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from numpy.typing import NDArray
from support.tiny_bundle import write_tiny_bundle
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import rvos_edge
from rvos_edge.result import Result
from rvos_edge.server.address import Address, ServerOptions
from rvos_edge.server.app import LiveServer
from rvos_edge.server.live import Live
from rvos_edge.streaming.loop import run_stream
from rvos_edge.streaming.sinks import EventSink, JsonSink
from rvos_edge.streaming.sinks.segments import SegmentedSink
from rvos_edge.streaming.sources import Frame, LiveCapture

SIZES = ((48, 64), (72, 96), (96, 72), (60, 80))
"""Height and width; one of them in portrait."""
STEPS = 20
"""Looks at memory and handles."""


class Camera:
    """Gives `frames` pictures with their number in the corner; dies every `life` of them, and has another size then."""

    fps = 5.0

    def __init__(self, frames: int, life: int) -> None:
        self.frames, self.life, self.given, self.taken = frames, life, 0, threading.Semaphore(2)
        self._left = 0

    def open(self) -> Camera:
        self._left = self.life
        return self

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        if self.given >= self.frames:
            time.sleep(0.5)  # until it is closed
        if not self._left or self.given >= self.frames:
            return False, None
        self.taken.acquire(timeout=60)
        height, width = SIZES[self.given // self.life % len(SIZES)]
        image = np.random.default_rng(self.given % 50).integers(0, 255, (height, width, 3), np.uint8)
        image[0, 0] = self.given >> 16, self.given >> 8 & 255, self.given & 255
        self.given, self._left = self.given + 1, self._left - 1
        return True, image

    def release(self) -> None: ...


@dataclass
class Watch:
    """Sink that checks the order of the frames, and looks at the process every so many."""

    camera: Camera
    live: Live
    wants_overlay: bool = False
    last: tuple[int, float, float] = (-1, 0.0, 0.0)
    looks: list[dict[str, int]] = field(default_factory=list)

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        blue, green, red = (int(value) for value in frame.image[0, 0])
        now = (blue << 16 | green << 8 | red, frame.timestamp, frame.time or 0.0)
        assert now[0] > self.last[0], f"frame {now[0]} after {self.last[0]}"
        assert now[1] >= self.last[1]
        assert result.masks.shape[1:] == frame.image.shape[:2]
        self.last = now
        if (now[0] + 1) % max(1000, self.camera.frames // STEPS) == 0:
            gc.collect()
            self.looks.append({"frame": now[0] + 1, **look()})
            print(self.looks[-1], file=sys.stderr)
        if now[0] + 1 == self.camera.frames:
            threading.Thread(target=self.live.player.close).start()
        self.camera.taken.release()

    def close(self) -> None: ...

    def abort(self) -> None: ...


def look() -> dict[str, int]:
    """Memory in KiB, open files and threads of this process."""
    status = Path("/proc/self/status").read_text()
    memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return {"memory": memory, "files": len(os.listdir("/proc/self/fd")), "threads": threading.active_count()}


def view(url: str, ended: threading.Event, counts: Counter[str]) -> None:
    """Come and go: pictures, status and edits, health, metrics."""
    while not ended.wait(0.05):
        try:
            with connect(f"ws{url[4:]}api/frames", compression=None, max_size=None) as frames:
                for _ in range(3):
                    frames.recv(5)
                    frames.send("next")
            with connect(f"ws{url[4:]}api/live", compression=None) as live:
                live.send(json.dumps({"queries": ["the dog", f"query {counts['viewers'] % 7}"]}))
                live.recv(5)
            for path in ("metrics", "api/health", "api/snapshot"):
                urllib.request.urlopen(url + path, timeout=10).read()
        except (OSError, ConnectionClosed, TimeoutError):
            counts["refused"] += 1  # while the camera is away no picture comes, and health is 503
        counts["viewers"] += 1


def soak(folder: Path, *, frames: int, losses: int, visitors: int = 2) -> dict[str, Any]:
    """Run the stream and return what was counted and measured."""
    bundle = write_tiny_bundle(folder / "tiny")
    segmenter = rvos_edge.open(bundle, backend="onnxruntime", threads=1)
    segmenter.set_queries(["the dog"])
    camera, told, counts = Camera(frames, -(-frames // (losses + 1))), Counter[str](), Counter[str]()
    source = LiveCapture(
        camera.open, name="camera", backoff=(0.001, 0.01), tell=lambda said: told.update([said.split()[2].strip("(,;")])
    )
    live = Live(segmenter, source, reopen=lambda: source, stills=lambda: segmenter, repeat=False)
    watch, ended = Watch(camera, live), threading.Event()
    events = EventSink(folder / "events.jsonl", camera="camera")
    lines = SegmentedSink(folder / "lines.jsonl", JsonSink, seconds=5, keep=30)
    live.player.on_event = events.write_source
    started = time.monotonic()
    with LiveServer(live, ServerOptions(Address(port=0))) as server:
        viewers = [threading.Thread(target=view, args=[server.url, ended, counts]) for _ in range(visitors)]
        for viewer in viewers:
            viewer.start()
        run_stream(live.segmenter, live.player, [live.sink, watch, events, lines], tell=lambda said: None)
        ended.set()
        for viewer in viewers:
            viewer.join()
    kinds = Counter(json.loads(line)["event"] for line in (folder / "events.jsonl").open())
    return {
        "seconds": round(time.monotonic() - started, 1),
        "frames": watch.last[0] + 1,
        "reconnects": source.reconnects,
        "events": {kind: count for kind, count in kinds.items() if kind.startswith("camera")},
        "said": dict(told),
        "segments": len(list(folder.glob("lines-*.jsonl"))),
        "viewers": counts["viewers"],
        "looks": watch.looks,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=8.0, help="simulated, at five frames per second")
    parser.add_argument("--losses", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), frames=round(options.hours * 3600 * Camera.fps), losses=options.losses)
    print(json.dumps(found, indent=1))
    first, last = found["looks"][STEPS // 5 - 1], found["looks"][-1]
    growth = (last["memory"] - first["memory"]) / 1024
    print(f"memory grew by {growth:.1f} MiB, files by {last['files'] - first['files']}")
    assert found["reconnects"] == found["events"]["camera lost"] == found["events"]["camera back"] == options.losses
    assert growth < 16, found["looks"]
    assert last["files"] - first["files"] <= 8, found["looks"]  # connections of viewers that are just open


if __name__ == "__main__":
    main()
