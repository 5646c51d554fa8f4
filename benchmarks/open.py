"""Opening a bundle on a named backend."""

from __future__ import annotations

from rvos_edge.bundle import Bundle
from rvos_edge.engines.base import Backend
from rvos_edge.engines.registry import open_backend
from rvos_edge.segmenter import Segmenter


def open_run(bundle: Bundle, backend: str, *, device: str, threads: int | None) -> tuple[Segmenter, Backend]:
    """The segmenter of a bundle on a backend, and the backend.

    Raises:
        UserError: The backend is unknown, not installed, or cannot run the bundle.
    """
    opened = open_backend(backend, device=device, threads=threads, bundle=bundle)
    return Segmenter(bundle=bundle, backend=opened), opened
