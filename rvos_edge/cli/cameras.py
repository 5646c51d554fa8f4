"""``rvos-edge run --config cameras.yaml``: several cameras in one process, on one model and one page."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rvos_edge.cli.options import RunOptions
from rvos_edge.cli.places import check_places, listen, make_sinks, rescue_recordings
from rvos_edge.cli.single import make_live, print_address, print_backend, print_summary
from rvos_edge.errors import UserError
from rvos_edge.queries import read_queries
from rvos_edge.streaming.loop import Meter, Stepper, Summary, run_stream
from rvos_edge.streaming.signals import terminate_as_interrupt, uninterrupted
from rvos_edge.streaming.sinks import Sink, open_sinks
from rvos_edge.streaming.sources import Source, tell_stderr
from rvos_edge.streaming.systemd import notifying

if TYPE_CHECKING:
    from rvos_edge.protocol import SegmenterProtocol
    from rvos_edge.result import Result


def run_cameras(cameras: Mapping[str, RunOptions]) -> None:
    """Segment several sources until they end, and print a summary of each.

    A stream that fails is told, and the others go on. The model computes one frame at a time, in the order in which
    they are asked for: a camera waits for at most one frame of each other.

    Raises:
        UserError: A source, the bundle, an output or the address cannot be used, or a stream failed.
    """
    from rvos_edge.server.app import LiveServer  # an optional extra

    first = next(iter(cameras.values()))
    for name, options in cameras.items():
        if options.window or options.workers is not None:
            raise UserError(f"{name} is one of several cameras, which --window and --workers are not for.")
        check_places(options)
    _check_apart(cameras)
    streams: dict[str, _Stream] = {}
    with terminate_as_interrupt(), ExitStack() as stack:
        model = stack.enter_context(ThreadPoolExecutor(1, "model"))
        shared: SegmenterProtocol | None = None
        for name, options in cameras.items():
            shared = options.open_segmenter(beside=shared)
            streams[name] = _Stream(name, options, shared, model, stack)
        lives = {name: stream.live for name, stream in streams.items()}
        with LiveServer(lives, first.server) as server:
            print_address(server.url, first)
            if shared is not None and not first.quiet:
                print_backend(shared, Console(stderr=True))
            try:
                for stream in streams.values():
                    stream.thread.start()
                with notifying([stream.meter for stream in streams.values()]):
                    for stream in streams.values():
                        while not stream.ended.wait(0.5):  # with a timeout, or Ctrl-C would have to wait too
                            pass
            except KeyboardInterrupt:
                pass
            with uninterrupted():
                for stream in streams.values():
                    stream.end()
    for stream in streams.values():
        if stream.summary is not None and not stream.options.quiet:
            console, presence = Console(stderr=stream.options.piped > 0), stream.presence
            print_summary(stream.summary, stream.source, stream.options, console, presence=presence)
    for stream in streams.values():
        lost = stream.summary.failures if stream.summary is not None else ()
        for failure in (stream.failure, *lost):
            if failure:
                raise UserError(f"{stream.name}: {failure}")


class _Stream:
    """A camera with its outputs, and the thread that runs it."""

    def __init__(
        self, name: str, options: RunOptions, segmenter: SegmenterProtocol, model: ThreadPoolExecutor, stack: ExitStack
    ) -> None:
        self.name, self.options = name, options
        self.meter, self.failure = Meter(), ""
        # Until Python 3.12 a thread counts as ended when a signal interrupts its `join`, and takes its outputs along.
        self.ended = threading.Event()
        self.summary: Summary | None = None
        self.presence = segmenter.bundle.manifest.has_presence
        if options.queries:
            segmenter.set_queries(read_queries(options.queries))
        self.source: Source = stack.enter_context(options.open_source())
        segmenter.set_adapt(options.adapt, background=True)
        rescue_recordings(options, self.source)
        self._sinks = stack.enter_context(open_sinks(make_sinks(options, self.source, name=name)))
        self.live = make_live(options, segmenter, self.source, self._sinks, self.meter)
        stack.callback(self.live.close)
        listen(self.live.player, self._sinks)
        self._stepper = InTurn(self.live.segmenter, model)
        self.thread = threading.Thread(target=self._run, name=f"camera {name}", daemon=True)

    def _run(self) -> None:
        outputs: list[Sink] = [self.live.sink, *self._sinks]
        try:
            self.summary = run_stream(
                self._stepper,
                self.live.player,
                outputs,
                frames=self.options.frames,
                opacity=self.options.opacity,
                overlap=self.options.overlap,
                tell=lambda told: tell_stderr(f"{self.name}: {told}"),
                meter=self.meter,
            )
        except Exception as error:
            self.failure = str(error)
            self.live.player.trouble = self.failure
            tell_stderr(f"{self.name}: {error}")
        finally:
            self.ended.set()

    def end(self) -> None:
        """End the stream and finish its outputs."""
        self.live.player.close()
        if self.thread.ident is not None:
            self.ended.wait()


class InTurn:
    """A segmenter that computes on the one thread of all cameras, first come first served."""

    def __init__(self, stepper: Stepper, model: ThreadPoolExecutor) -> None:
        self._stepper, self._model = stepper, model

    @property
    def queries(self) -> tuple[str, ...]:
        return self._stepper.queries

    def set_queries(self, queries: Sequence[str]) -> None:
        self._stepper.set_queries(queries)

    def step(self, frame: NDArray[np.uint8]) -> Result:
        return self._model.submit(self._stepper.step, frame).result()


def _check_apart(cameras: Mapping[str, RunOptions]) -> None:
    """Refuse places that two cameras would write."""
    taken: dict[str, str] = {}
    for name, options in cameras.items():
        for place in map(str, options.places):
            if place in taken and "://" not in place:
                raise UserError(f"{place} is an output of {taken[place]} and of {name}; give each its own.")
            taken[place] = name
