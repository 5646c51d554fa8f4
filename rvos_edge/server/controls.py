"""What people want of a running stream, and the segmenter that does it from frame to frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rvos_edge.errors import UserError

if TYPE_CHECKING:
    from rvos_edge.protocol import SegmenterProtocol
    from rvos_edge.result import Result

MOST_QUERIES = 16
"""Of the page; a bundle may take fewer."""


class Settings(BaseModel):
    """What can be set while a stream runs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    threshold: float = Field(default=0.0, ge=-10, le=10, allow_inf_nan=False)
    """Logit above which a pixel belongs to an object; 0 is a probability of one half."""
    opacity: float = Field(default=0.5, ge=0, le=1, allow_inf_nan=False)
    """Of the masks in the picture."""
    iterations: int | None = Field(default=None, ge=1, le=32)
    """Updates per computed flow; null where the stream computes none."""
    mask: bool = True
    """Fill the masks."""
    outline: bool = True
    """Draw their contours."""
    flow: bool = False
    """Show the optical flow in place of the picture."""
    paused: bool = False
    """Hold the picture; edits are shown on it."""


@dataclass(frozen=True)
class Wanted:
    """Everything that is wanted of the next frame.

    Attributes:
        queries: Normalised; none for the bare picture.
        settings: See ``Settings``.
        revision: Grows with every edit.
    """

    queries: tuple[str, ...]
    settings: Settings
    revision: int = 0


class ServerControls:
    """Takes edits from any thread, as often as they come; the stream takes over the newest before each frame.

    An edit is checked when it comes and done when the next frame does: hundreds in between cost nothing.

    Args:
        segmenter: Checks queries, and gives the settings to start with.
        opacity: To start with.

    Attributes:
        shown: What the last frame was made with.
        error: Why the last edit could not be done although it was taken, empty otherwise.
    """

    def __init__(self, segmenter: SegmenterProtocol, *, opacity: float = 0.5) -> None:
        self._segmenter = segmenter
        settings = Settings(threshold=segmenter.threshold, iterations=segmenter.iterations, opacity=opacity)
        self._wanted = self.shown = Wanted(segmenter.queries, settings)
        self.error = ""
        self._changed = threading.Condition()

    @property
    def wanted(self) -> Wanted:
        """What the next frame is made with."""
        return self._wanted

    def set_queries(self, queries: Sequence[str]) -> int:
        """Ask for other queries, or with none for the bare picture; returns the revision.

        Raises:
            UserError: One is empty or too long, or there are too many; the old ones stay.
        """
        if isinstance(queries, (list, tuple)) and len(queries) > MOST_QUERIES:
            raise UserError(f"{len(queries)} queries are too many at once; give at most {MOST_QUERIES}.")
        checked = self._segmenter.check_queries(queries) if len(queries) else ()
        with self._changed:
            return self._set(Wanted(checked, self._wanted.settings, self._wanted.revision + 1))

    def change(self, changes: Mapping[str, Any]) -> int:
        """Change some of the settings; returns the revision.

        Raises:
            UserError: A name is unknown or a value out of range; all settings stay.
        """
        with self._changed:
            settings = self._validate(changes)
            return self._set(Wanted(self._wanted.queries, settings, self._wanted.revision + 1))

    def wait_for_edit(self, since: int, timeout: float) -> bool:
        """Wait until something newer than revision ``since`` is wanted, or for ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._wanted.revision != since, timeout)

    def wake(self) -> None:
        """End every ``wait_for_edit`` that has not been answered, by an edit that changes nothing."""
        with self._changed:
            self._set(Wanted(self._wanted.queries, self._wanted.settings, self._wanted.revision + 1))

    def refuse(self, wanted: Wanted, message: str) -> None:
        """Go back to what was shown where ``wanted`` could not be done, unless something newer is wanted."""
        with self._changed:
            if self._wanted.revision == wanted.revision:
                self._set(Wanted(self.shown.queries, self.shown.settings, wanted.revision + 1), message)

    def _set(self, wanted: Wanted, error: str = "") -> int:
        self._wanted, self.error = wanted, error
        self._changed.notify_all()
        return wanted.revision

    def _validate(self, changes: Mapping[str, Any]) -> Settings:
        before = self._wanted.settings
        try:
            settings = Settings.model_validate({**before.model_dump(), **changes})
        except ValidationError as error:
            raise UserError(explain(error)) from error
        if before.iterations is None and (settings.iterations is not None or settings.flow):
            raise UserError("this stream computes no flow; leave flow and iterations alone, or start it with flow.")
        if before.iterations is not None and settings.iterations is None:
            raise UserError("iterations cannot be null on a stream with flow; give a number from 1 to 32.")
        return settings


class LiveSegmenter:
    """A segmenter for the streaming loop that does what the controls want, from the next frame on.

    Args:
        segmenter: Nobody else changes its settings.
        controls: Made for it.
    """

    def __init__(self, segmenter: SegmenterProtocol, controls: ServerControls) -> None:
        self._segmenter = segmenter
        self._controls = controls
        self._done = controls.shown

    @property
    def queries(self) -> tuple[str, ...]:
        """What the last frame was asked for."""
        return self._done.queries

    def set_queries(self, queries: Sequence[str]) -> None:
        """As the page would."""
        self._controls.set_queries(queries)

    def reset(self) -> None:
        """Forget the video."""
        self._segmenter.reset()

    def step(self, frame: NDArray[np.uint8]) -> Result:
        """Do what is wanted, then segment; without queries the result has no masks.

        Raises:
            UserError: As ``Segmenter.step``; an edit that cannot be done is told in ``ServerControls.error`` instead.
        """
        wanted = self._controls.wanted
        if wanted.revision != self._done.revision:
            wanted = self._adjust(wanted)
        result = self._segmenter.step(frame) if wanted.queries else _nothing(frame)
        self._done = self._controls.shown = wanted
        return result

    def _adjust(self, wanted: Wanted) -> Wanted:
        segmenter, done = self._segmenter, self._done
        settings = wanted.settings
        try:
            if wanted.queries and wanted.queries != segmenter.queries:
                segmenter.set_queries(wanted.queries)
            if settings.threshold != segmenter.threshold:
                segmenter.set_threshold(settings.threshold)
            if settings.iterations is not None and settings.iterations != segmenter.iterations:
                segmenter.set_iterations(settings.iterations)
            segmenter.set_keep_flow(settings.flow)
        except UserError as error:
            self._controls.refuse(wanted, str(error))
            return done
        if bool(wanted.queries) != bool(done.queries):
            # The frames between were not seen: the next one has no previous frame.
            segmenter.reset()
        return wanted


def explain(error: ValidationError) -> str:
    """The first thing that a model found wrong, as a sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the body"
    message = str(first["msg"])
    if first["type"] == "extra_forbidden":
        return f"'{where[:40]}' is not known here; leave it out."
    return f"{where[:40]}: {message[:1].lower()}{message[1:]}."


def _nothing(frame: NDArray[np.uint8]) -> Result:
    from rvos_edge.preprocess import check_frame
    from rvos_edge.result import Result

    start = time.perf_counter()
    height, width = check_frame(frame)
    masks = np.zeros((0, height, width), np.bool_)
    timings = {"preprocess": 1e3 * (time.perf_counter() - start)}
    return Result((), masks, np.zeros((0, 1, 1), np.float32), np.zeros(0, np.float32), timings, False, None, 0)
