"""Opening a bundle on a named backend, of either runtime."""

from __future__ import annotations

from pathlib import Path

from rvos_edge.opening import open_segmenter
from rvos_edge.protocol import SegmenterProtocol


def open_run(
    bundle: Path, size: tuple[int, int], backend: str, *, device: str, threads: int | None
) -> SegmenterProtocol:
    """The segmenter of a bundle on a backend; "cpp:" before its name means the C++ runtime.

    Raises:
        UserError: The backend is unknown, not installed, or cannot run the bundle.
    """
    runtime, _, name = backend.rpartition(":")
    return open_segmenter(bundle, size=size, backend=name, device=device, threads=threads, runtime=runtime or "python")
