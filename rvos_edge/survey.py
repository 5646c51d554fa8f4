"""What each backend makes of a bundle on this machine."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from rvos_edge.bundle import Bundle
from rvos_edge.engines.base import Backend
from rvos_edge.engines.registry import available_backends, open_backend, open_best
from rvos_edge.errors import UserError
from rvos_edge.segmenter import Segmenter
from rvos_edge.synthetic.camera import SyntheticCamera

_WARM_UP, _TIMED = 3, 12


@dataclass(frozen=True)
class Trial:
    """A backend's try at a few frames.

    Attributes:
        backend: Backend and device, for people.
        milliseconds: Median of a frame with one query; None where it does not work.
        note: Why "auto" takes it, or why it does not work; empty otherwise.
        chosen: Whether "auto" takes it.
    """

    backend: str
    milliseconds: float | None
    note: str = ""
    chosen: bool = False


def survey(bundle: Bundle) -> Iterator[Trial]:
    """Try what "auto" takes, then everything else that is installed; no engines are built for it.

    A handful of frames on a machine that may be busy: enough to see which is faster, and no benchmark.
    """
    frames = list(itertools.islice(SyntheticCamera(seed=0, size=bundle.manifest.size), _WARM_UP + _TIMED))

    def attempt(backend: Backend) -> float:
        segmenter = Segmenter(bundle=bundle, backend=backend)
        segmenter.set_queries(["the red ball"])
        times = []
        for frame in frames:
            start = time.perf_counter()
            segmenter.step(frame.image)
            times.append(1e3 * (time.perf_counter() - start))
        return median(times[_WARM_UP:])

    def tried(backend: Backend) -> tuple[Backend, float]:
        return backend, attempt(backend)

    best, milliseconds = open_best(bundle, tried)
    yield Trial(best.name, milliseconds, best.reason, chosen=True)
    for name in available_backends(bundle, "auto"):
        yield from _try(name, bundle, best, attempt)


def _try(name: str, bundle: Bundle, best: Backend, attempt: Callable[[Backend], float]) -> Iterator[Trial]:
    """One trial, or none of the backend that was chosen."""
    try:
        backend = open_backend(name, bundle=bundle, build=False)
        if backend.name != best.name:
            yield Trial(backend.name, attempt(backend))
    except UserError as error:
        yield Trial(name, None, str(error))
