"""Edits of a running stream, and the segmenter that applies them from frame to frame."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, ValidationError

from rvos_edge.adaptation import Adapt, check_adapt
from rvos_edge.errors import UserError
from rvos_edge.pictures import as_frame
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.queries import Query, TaughtQuery, normalise
from rvos_edge.result import Result
from rvos_edge.strict import StrictModel

MOST_QUERIES = 16
"""Limit of the page; a bundle may take fewer."""


class Settings(StrictModel):
    """Settings that can be changed while a stream runs."""

    model_config = ConfigDict(strict=True, use_attribute_docstrings=True)

    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Probability above which a pixel belongs to an object."""
    opacity: float = Field(default=0.5, ge=0, le=1, allow_inf_nan=False)
    """Opacity of the masks in the picture."""
    iterations: int | None = Field(default=None, ge=1, le=32)
    """Updates per computed flow; null where the stream computes none."""
    mask: bool = True
    """Fill the masks."""
    outline: bool = True
    """Draw their contours."""
    flow: bool = False
    """Show the optical flow in place of the picture."""
    adapt: Adapt = "off"
    """Let queries settle on their own first confident masks: once, or again after their confidence fell."""
    names: bool = True
    """Write each query on its mask."""
    hidden: list[str] = Field(default=[], max_length=MOST_QUERIES)
    """Queries, as they are asked, that are not drawn."""
    labels: dict[str, Annotated[str, Field(min_length=1, max_length=60)]] = Field(default={}, max_length=MOST_QUERIES)
    """Names that are shown for queries, by the query as it is asked."""
    paused: bool = False
    """Hold the picture; edits are shown on it."""


@dataclass(frozen=True)
class Wanted:
    """Queries and settings of the next frame.

    Attributes:
        queries: Normalised queries, a taught one as "@" and its name; empty for the bare picture.
    """

    queries: tuple[str, ...]
    settings: Settings
    revision: int = 0
    asked: tuple[Query, ...] = ()


class ServerControls:
    """Takes edits from any thread; the stream applies the newest before each frame.

    An edit is checked when it comes and applied with the next frame: hundreds in between cost nothing. It is taken
    whole or refused whole.

    Attributes:
        shown: Queries and settings of the last frame.
        error: Reason why the last edit that was taken could not be applied; empty otherwise.
        taught: Taught queries by name; a query "@NAME" of an edit is one of them, never a file.
    """

    def __init__(self, segmenter: SegmenterProtocol, *, opacity: float = 0.5) -> None:
        self._segmenter = segmenter
        settings = Settings(
            threshold=segmenter.threshold,
            iterations=segmenter.iterations,
            opacity=opacity,
            adapt=check_adapt(segmenter.adapt),
        )
        self.taught = {query.label: query for query in segmenter.asked if isinstance(query, TaughtQuery)}
        self._wanted = self.shown = Wanted(_texts(segmenter.asked), settings, asked=segmenter.asked)
        self.error = ""
        self._changed = threading.Condition()

    @property
    def wanted(self) -> Wanted:
        """Queries and settings of the next frame."""
        return self._wanted

    def doubts(self, queries: Sequence[Query]) -> tuple[str, ...]:
        """For each query the reason why it is unlikely to be understood, or an empty string."""
        return self._segmenter.doubts(queries) if queries else ()

    def edit(self, queries: Sequence[str] | None = None, settings: Mapping[str, Any] | None = None) -> int:
        """Ask for other queries (an empty list for the bare picture), for some other settings, or for both.

        Returns the revision.

        Raises:
            UserError: A query is empty or too long, there are too many, a setting is unknown or out of range; nothing
                is changed then.
        """
        if queries is not None and len(queries) > MOST_QUERIES:
            raise UserError(f"{len(queries)} queries are too many at once; give at most {MOST_QUERIES}.")
        with self._changed:
            wanted = self._wanted
            if queries is not None:
                asked = normalise(self.resolve(queries))
                if asked:
                    self._segmenter.check_queries(asked)
                wanted = replace(wanted, queries=_texts(asked))
            if settings is not None:
                wanted = replace(wanted, settings=self._validate(settings))
            return self._set(wanted)

    def resolve(self, queries: Sequence[str]) -> tuple[Query, ...]:
        """The queries of an edit as a segmenter takes them; an unknown name of a taught query is refused."""
        for text in queries:
            if text.startswith("@") and text[1:] not in self.taught:
                raise UserError(f"there is no taught query '{text[1:40]}'; teach it, or upload its file.")
        return tuple(self.taught[text[1:]] if text.startswith("@") else text for text in queries)

    def put_taught(self, name: str, query: TaughtQuery | None, *, instead_of: str = "") -> None:
        """Keep a taught query and ask it, or forget it and ask its sentence again.

        Args:
            instead_of: The query whose place it takes, unless it is asked already.

        Raises:
            UserError: It was taught to another network.
        """
        with self._changed:
            texts, own = list(self._wanted.queries), f"@{name}"
            if query is None:
                gone = self.taught.pop(name, None)
                texts = [gone.sentence if gone is not None and text == own else text for text in texts]
            else:
                self._segmenter.check_queries([query])
                self.taught[name] = query
                if own not in texts and instead_of in texts:
                    texts[texts.index(instead_of)] = own
                elif own not in texts and len(texts) < MOST_QUERIES:
                    texts.append(own)
            self._set(replace(self._wanted, queries=tuple(texts)))

    def wait_for_edit(self, since: int, timeout: float) -> bool:
        """Wait for an edit after revision ``since``, at most ``timeout`` seconds; True if one came."""
        with self._changed:
            return self._changed.wait_for(lambda: self._wanted.revision != since, timeout)

    def wake(self) -> None:
        """End every ``wait_for_edit`` by an edit that changes nothing."""
        with self._changed:
            self._set(self._wanted)

    def refuse(self, wanted: Wanted, message: str) -> None:
        """Go back to what was shown because ``wanted`` could not be applied, unless a newer edit came."""
        with self._changed:
            if self._wanted.revision == wanted.revision:
                self._set(self.shown, message)

    def _set(self, wanted: Wanted, error: str = "") -> int:
        """Make ``wanted`` the next revision; what was forgotten meanwhile is not asked."""
        texts = tuple(text for text in wanted.queries if not text.startswith("@") or text[1:] in self.taught)
        revision, settings = self._wanted.revision + 1, wanted.settings
        hidden = [text for text in settings.hidden if text in texts]
        labels = {text: label for text, label in settings.labels.items() if text in texts}
        settings = settings.model_copy(update={"hidden": hidden, "labels": labels})
        self._wanted = Wanted(texts, settings, revision, self.resolve(texts))
        self.error = error
        self._changed.notify_all()
        return revision

    def _validate(self, changes: Mapping[str, Any]) -> Settings:
        before = self._wanted.settings
        try:
            settings = Settings.model_validate({**before.model_dump(), **changes})
        except ValidationError as error:
            raise UserError(explain(error.errors()[0])) from error
        if before.iterations is None and (settings.iterations is not None or settings.flow):
            raise UserError("this stream computes no flow; leave flow and iterations alone, or start it with flow.")
        if before.iterations is not None and settings.iterations is None:
            raise UserError("iterations cannot be null on a stream with flow; give a number from 1 to 32.")
        return settings


class LiveSegmenter:
    """Segmenter for the streaming loop that applies edits before each frame; only this object changes its settings."""

    def __init__(self, segmenter: SegmenterProtocol, controls: ServerControls) -> None:
        self._segmenter = segmenter
        self._controls = controls
        self._done = controls.shown
        self._asked = controls.shown.asked

    @property
    def queries(self) -> tuple[str, ...]:
        """Queries of the last frame."""
        return self._done.queries

    def set_queries(self, queries: Sequence[str]) -> None:
        """Ask for other queries, like an edit on the page."""
        self._controls.edit(queries)

    def reset(self) -> None:
        """Forget the video."""
        self._segmenter.reset()

    def step(self, frame: NDArray[np.uint8]) -> Result:
        """Apply the newest edit, then segment; without queries the result has no masks.

        Raises:
            UserError: The frame is no uint8 [H,W,3]; an edit that cannot be applied sets ``ServerControls.error``.
        """
        wanted = self._controls.wanted
        if wanted.revision != self._done.revision:
            wanted = self._adjust(wanted)
        result = self._segmenter.step(frame) if wanted.queries else _nothing(frame)
        self._done = self._controls.shown = wanted
        return result

    def _adjust(self, wanted: Wanted) -> Wanted:
        done = self._done
        try:
            self._apply(wanted)
        except UserError as error:
            self._apply(done)  # some of the edit may be done already
            self._controls.refuse(wanted, str(error))
            return done
        if bool(wanted.queries) != bool(done.queries):
            # The frames between were not seen: the next one has no previous frame.
            self._segmenter.reset()
        return wanted

    def _apply(self, wanted: Wanted) -> None:
        segmenter, settings = self._segmenter, wanted.settings
        if wanted.asked and wanted.asked != self._asked:
            segmenter.set_queries(wanted.asked)
            self._asked = wanted.asked
        if settings.threshold != segmenter.threshold:
            segmenter.set_threshold(settings.threshold)
        if settings.iterations is not None and settings.iterations != segmenter.iterations:
            segmenter.set_iterations(settings.iterations)
        segmenter.set_keep_flow(settings.flow)
        if settings.adapt != segmenter.adapt:
            segmenter.set_adapt(settings.adapt, background=True)


def _texts(asked: Sequence[Query]) -> tuple[str, ...]:
    return tuple(f"@{query.label}" if isinstance(query, TaughtQuery) else query for query in asked)


def explain(error: Mapping[str, Any]) -> str:
    """One error of pydantic as a sentence."""
    where = ".".join(str(part) for part in error["loc"])[:40] or "the body"
    message = str(error["msg"])
    if error["type"] == "extra_forbidden":
        return f"'{where}' is not known here; leave it out."
    return f"{where}: {message[:1].lower()}{message[1:]}."


def _nothing(frame: NDArray[np.uint8]) -> Result:
    masks = np.zeros((0, *as_frame(frame).shape[:2]), np.bool_)
    return Result((), masks, np.zeros((0, 1, 1), np.float32), np.zeros(0, np.float32), {}, False, None, 0)
