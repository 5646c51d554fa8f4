"""The synthetic camera as a source."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources.base import Frame, Source, SourceOptions
from rvos_edge.synthetic.camera import SyntheticCamera, SyntheticFrame

SYNTHETIC_SIZE = (288, 512)
SYNTHETIC_FPS = 25.0


class SyntheticSource(Source):
    """The endless synthetic camera: moving shapes whose exact masks are known, those of the frame that was handed out
    last in ``current``.
    """

    def __init__(self, *, seed: int = 0, size: tuple[int, int] | None = None, objects: int | None = None) -> None:
        super().__init__(name=f"synthetic:{seed}", fps=SYNTHETIC_FPS)
        self.camera = SyntheticCamera(seed=seed, size=size or SYNTHETIC_SIZE, objects=objects)
        self.current: SyntheticFrame | None = None

    def __iter__(self) -> Iterator[Frame]:
        for index, rendered in enumerate(self.camera):
            self.current = rendered
            yield Frame(rendered.image, index, index / SYNTHETIC_FPS, f"{index:05d}", time.perf_counter())


def open_synthetic(spec: str, options: SourceOptions) -> Source | None:
    """Open the synthetic camera, with a seed or without; None for other names."""
    kind, colon, seed = spec.partition(":")
    if kind != "synthetic":
        return None
    if colon and not (seed.isascii() and seed.isdigit()):
        raise UserError(f"the seed in {spec!r} is not a number; write for example 'synthetic:7'")
    return SyntheticSource(seed=int(seed or 0), size=options.size)
