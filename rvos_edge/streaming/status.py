"""The display on a terminal while a stream runs: a bar with the time left for files, a live status for cameras."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from rvos_edge.flow.policy import FlowDecision
from rvos_edge.progress import progress_bar
from rvos_edge.result import Result
from rvos_edge.streaming.loop import Meter, OnResult, Summary
from rvos_edge.streaming.overlay import query_colour
from rvos_edge.streaming.sources import Frame, Source

_REFRESH_SECONDS = 0.25


class Status:
    """Follows a stream on a terminal; in a log, a file has a line every few seconds, and a live source nothing.

    Entering gives the `on_result` for `run_stream`.
    """

    def __init__(
        self,
        source: Source,
        meter: Meter,
        *,
        backend: str,
        frames: int | None = None,
        console: Console | None = None,
        hidden: bool = False,
    ) -> None:
        self._source, self._meter, self._backend = source, meter, backend
        console = console or Console(stderr=True)
        known = [count for count in (source.length, frames) if count is not None]
        self._bar: Progress | None = None
        self._live: Live | None = None
        self._refreshed = 0.0
        if hidden:
            return
        if known and not source.live:
            self._bar = progress_bar(console)
            self._task = self._bar.add_task(escape(source.name), total=min(known))
        elif console.is_terminal:
            # No thread of rich's own: the meter belongs to the loop's thread, and so does the drawing.
            self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)

    def __enter__(self) -> OnResult:
        if self._bar is not None:
            self._bar.start()
        if self._live is not None:
            self._live.start()
        return self._on_result

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._live is not None:
            self._live.stop()

    def _on_result(self, frame: Frame, result: Result) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)
        now = time.monotonic()
        if self._live is not None and now - self._refreshed >= _REFRESH_SECONDS:
            self._refreshed = now
            self._live.update(status_table(self._source, self._meter, result, backend=self._backend), refresh=True)


def status_table(source: Source, meter: Meter, result: Result, *, backend: str) -> Table:
    """The state of a stream in a few lines: rate, latency, dropped frames, queries, backend and flow."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    latency = meter.latency
    times = "" if latency is None else f"   latency p50 {latency.p50:.0f} ms, p95 {latency.p95:.0f} ms"
    dropped = f"   {source.dropped} dropped" if source.live else ""
    table.add_row(escape(source.name), f"{meter.fps:.1f} frames/s{times}   {meter.frames} frames{dropped}")
    queries = []
    for index, (query, score) in enumerate(zip(result.queries, result.scores, strict=True)):
        blue, green, red = query_colour(index)
        queries.append(f"[rgb({red},{green},{blue})]■[/] {escape(query)} {score:.2f}")
    table.add_row("queries", "   ".join(queries))
    table.add_row("backend", escape(backend))
    table.add_row("flow", escape(_flow(result.decision)))
    return table


def stage_table(summary: Summary) -> Table:
    """Build a table of the times of a stream by stage."""
    table = Table(title="Milliseconds by stage")
    for column in ("stage", "p50", "p95"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, values in summary.stages.items():
        table.add_row(stage, f"{values.p50:.1f}", f"{values.p95:.1f}")
    if summary.latency:
        latency = summary.latency
        table.add_row("frame to mask", f"{latency.p50:.1f}", f"{latency.p95:.1f}", style="bold")
    return table


def finding_lines(summary: Summary, *, presence: bool) -> list[str]:
    """A line for each query that says how often it was found; ``presence``: the bundle can tell it."""
    return [
        f"{found.query}: found in {found.found} of {found.frames} frames"
        + (f", mean presence {found.presence:.2f}" if presence else "")
        for found in summary.findings
    ]


def _flow(decision: FlowDecision | None) -> str:
    if decision is None:
        return "none"
    updates = f", {decision.iterations} updates" if decision.iterations else ""
    return f"{decision.action} ({decision.reason}{updates})"
