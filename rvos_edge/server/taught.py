"""Queries that are taught on the page: frames that are kept to show something on, and the thread that learns."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.bundle import Bundle
from rvos_edge.errors import UserError
from rvos_edge.manifest import TEACH_GRAPH
from rvos_edge.queries import Query, TaughtQuery
from rvos_edge.segmenter import Segmenter
from rvos_edge.server.broadcast import Shown
from rvos_edge.server.controls import ServerControls
from rvos_edge.server.rendering import fit
from rvos_edge.teaching import Teacher, lower_priority, teach
from rvos_edge.text import normalise_query

_LOG = logging.getLogger(__name__)
MOST_TAUGHT = 32
_MOST_KEPT = 8
"""Frames on which nothing has been shown yet."""
_MOST_SHOWN = 40
"""Frames of all taught queries together: each is two pictures in memory."""
_WIDEST = 960
"""Longest side of a frame that is kept, in pixels."""
_LONGEST_NAME = 60


@dataclass(frozen=True)
class KeptFrame:
    """A frame to show something on, uint8 [H,W,3] BGR, the one before it in the stream, and the masks bool [Q,H,W] of
    the stream's queries.
    """

    image: NDArray[np.uint8]
    previous: NDArray[np.uint8] | None
    masks: NDArray[np.bool_]
    queries: tuple[str, ...]


@dataclass(frozen=True)
class _Version:
    """A taught query and what it learned from: masks bool [H,W] by the frame's id, each with its frame."""

    query: TaughtQuery
    shown: Mapping[str, tuple[KeptFrame, NDArray[np.bool_]]]


class TaughtQueries:
    """The taught queries of a stream, by name; at most one is learned at a time, in a thread with its own graphs.

    Attributes:
        trouble: Reason why the last one was not learned; empty otherwise.
    """

    def __init__(self, controls: ServerControls, bundle: Bundle) -> None:
        self._controls, self._bundle = controls, bundle
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, KeptFrame] = OrderedDict()
        self._versions: dict[str, list[_Version]] = {
            name: [_Version(query, {})] for name, query in controls.taught.items()
        }
        self._school: tuple[Segmenter, Teacher] | None = None
        self._closed = False
        self.learning = ""
        self.trouble = ""

    @property
    def possible(self) -> bool:
        """True if the bundle has the graph with which queries learn."""
        return TEACH_GRAPH in self._bundle.manifest.graphs

    def keep(self, shown: Shown, before: Shown | None) -> tuple[str, KeptFrame]:
        """Keep the newest frame to show something on; the oldest one on which nothing was shown is forgotten.

        Returns its id, and the frame, which may be smaller than the stream's.
        """
        image = fit(shown.frame.image, _WIDEST)
        height, width = image.shape[:2]
        earlier = None
        if before is not None and before.frame.image.shape == shown.frame.image.shape:
            earlier = fit(before.frame.image, _WIDEST).copy()
        rows = np.arange(height) * shown.result.masks.shape[1] // height
        columns = np.arange(width) * shown.result.masks.shape[2] // width
        masks = shown.result.masks[:, rows[:, None], columns]
        kept = KeptFrame(image.copy(), earlier, masks, tuple(shown.result.queries))
        name = secrets.token_hex(8)
        with self._lock:
            self._kept[name] = kept
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return name, kept

    def frame(self, name: str) -> KeptFrame:
        """A frame by its id; KeyError where there is none, or it was forgotten."""
        with self._lock:
            return self._kept[name]

    def learn(self, frame: str, mask: NDArray[np.bool_], name: str, *, like: str = "") -> str:
        """Begin to learn what a mask shows on a kept frame; the query is asked when it is learned.

        A query of this name learns from all that was shown to it, this included.

        Args:
            mask: bool [H,W] of its size; empty where the object is absent.
            like: The query to start from, as it is asked; the new one takes its place. A query that is taught further
                keeps its own.

        Raises:
            UserError: The bundle cannot learn, the mask or the name cannot be taken, there are too many, or another one
                is being learned.
            KeyError: There is no such frame.
        """
        if not self.possible:
            raise UserError("this bundle has no graph 'teach', without which no query can learn; export it again.")
        kept, name = self.frame(frame), _name(name)
        if mask.shape != kept.image.shape[:2]:
            height, width = kept.image.shape[:2]
            raise UserError(f"the mask is {mask.shape[1]} x {mask.shape[0]} and its frame {width} x {height}.")
        start: Query = self._controls.resolve([like])[0]
        with self._lock:
            self._settled(self.learning)
            versions = self._versions.get(name, [])
            shown = {**(versions[-1].shown if versions else {}), frame: (kept, mask)}
            if not any(each.any() for _, each in shown.values()):
                raise UserError("nothing is shown yet; draw a box around the object, or paint it.")
            others = {id for known, each in self._versions.items() if known != name for id in each[-1].shown}
            if len(others | set(shown)) > _MOST_SHOWN:
                raise UserError(f"{_MOST_SHOWN} frames are shown already, and no more are kept; remove a query.")
            self._room(name)
            self.learning, self.trouble = name, ""
        if versions:
            # Frames that were shown elsewhere are not at hand: the query that came of them is the start.
            start = versions[0].query if not versions[0].shown else versions[0].query.sentence
        # A process that ends waits for it: an engine that is killed in a thread takes the process down.
        threading.Thread(target=self._learn, args=(name, shown, start, like), name="teach").start()
        return name

    def close(self) -> None:
        """End what is being learned."""
        self._closed = True
        if self._school is not None:
            self._school[1].stopped = True

    def add(self, data: bytes, name: str) -> str:
        """Take the file of a taught query, and ask it; returns its name.

        Raises:
            UserError: It is none, belongs to another network, or there are too many.
        """
        query = TaughtQuery.from_json(data, "the file")
        name = _name(name or query.label)
        with self._lock:
            self._room(name)
        self._put(name, _Version(query.named(name), {}))
        return name

    def file(self, name: str) -> str:
        """The contents of a query's file; KeyError where there is none of that name."""
        with self._lock:
            return self._versions[name][-1].query.to_json()

    def undo(self, name: str) -> None:
        """Go back to what a query was before the last thing it learned; at the beginning, to its sentence.

        Raises:
            UserError: It is being learned.
            KeyError: There is none of that name.
        """
        with self._lock:
            self._settled(name)
            versions = self._versions[name]
            versions.pop()
            if not versions:
                del self._versions[name]
        self._controls.put_taught(name, versions[-1].query if versions else None)

    def rename(self, name: str, new: str) -> str:
        """Call a query otherwise; returns the new name.

        Raises:
            UserError: The new name cannot be taken, or it is being learned.
            KeyError: There is none of the old name.
        """
        new = _name(new)
        with self._lock:
            self._settled(name)
            versions = self._versions[name]
            if new == name:
                return new
            if new in self._versions:
                raise UserError(f"there is a taught query '{new}' already; choose another name.")
            del self._versions[name]
            self._versions[new] = [_Version(each.query.named(new), each.shown) for each in versions]
            query = self._versions[new][-1].query
        self._controls.put_taught(new, query, instead_of=f"@{name}")
        self._controls.put_taught(name, None)
        return new

    def rows(self) -> list[dict[str, Any]]:
        """Every taught query, as JSON."""
        with self._lock:
            return [
                {
                    "name": name,
                    "sentence": (query := versions[-1].query).sentence,
                    "shots": query.shots,
                    "j": query.j,
                    "sentence_j": query.sentence_j,
                }
                for name, versions in self._versions.items()
            ]

    def _settled(self, name: str) -> None:
        if name and name == self.learning:
            raise UserError(f"'{name}' is being learned; wait a moment.")

    def _room(self, name: str) -> None:
        if name not in self._versions and len(self._versions) >= MOST_TAUGHT:
            raise UserError(f"there are {MOST_TAUGHT} taught queries already; undo one.")

    def _put(self, name: str, version: _Version, instead_of: str = "") -> None:
        self._controls.put_taught(name, version.query, instead_of=instead_of)  # refused where it is of another network
        with self._lock:
            self._versions.setdefault(name, []).append(version)

    def _learn(
        self, name: str, shown: dict[str, tuple[KeptFrame, NDArray[np.bool_]]], start: Query, instead_of: str
    ) -> None:
        lower_priority()
        trouble = "the server failed to learn; see its log."
        try:
            self._put(name, _Version(self._teach(name, shown, start), shown), instead_of)
            trouble = ""
        except UserError as error:
            trouble = str(error)
        except Exception:  # the stream goes on
            _LOG.exception("a query could not be learned")
        finally:
            with self._lock:
                self.learning, self.trouble = "", trouble

    def _teach(self, name: str, shown: dict[str, tuple[KeptFrame, NDArray[np.bool_]]], start: Query) -> TaughtQuery:
        from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend  # here: another backend may do without it

        if self._school is None:
            backend = OnnxRuntimeBackend(device="cpu", threads=1)
            self._school = Segmenter(bundle=self._bundle, backend=backend), Teacher(self._bundle)
        segmenter, teacher = self._school
        teacher.stopped = self._closed
        frames = [kept for kept, _ in shown.values()]
        return teach(
            segmenter,
            [kept.image for kept in frames],
            [mask for _, mask in shown.values()],
            like=start,
            name=name,
            previous=[kept.previous for kept in frames],
            teacher=teacher,
        )


def _name(given: str) -> str:
    """A name as it is shown."""
    name = normalise_query("".join(letter if letter.isprintable() else " " for letter in given))
    name = name.lstrip("@").strip()[:_LONGEST_NAME]
    if not name:
        raise UserError("the query has no name; give one, such as 'my mug'.")
    return name
