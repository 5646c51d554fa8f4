"""Opening a bundle: ``rvos_edge.open``."""

from __future__ import annotations

from pathlib import Path

from rvos_edge.bundle import Bundle, shipped_bundle
from rvos_edge.engines.base import Backend
from rvos_edge.engines.registry import open_best
from rvos_edge.errors import UserError
from rvos_edge.flow.policy import FlowOptions
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.segmenter import Segmenter
from rvos_edge.text import default_cache_dir


def open_segmenter(
    path: str | Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    device: str = "auto",
    backend: str = "auto",
    flow: FlowOptions | None = None,
    cache_dir: str | Path | None = None,
    threads: int | None = None,
    threshold: float = 0.0,
    runtime: str = "python",
) -> SegmenterProtocol:
    """Open a bundle for segmentation; exported as ``rvos_edge.open``.

    Args:
        path: The bundle's directory; None for the bundle that comes with the package.
        size: Height and width of the network's input, one that the bundle was exported for; None for its first.
        device: "auto", "cpu" or "cuda".
        backend: "auto" for the fastest that works, or a name such as "onnxruntime" (``engines.choose.BACKENDS``).
        flow: How much flow to compute; None for the defaults.
        cache_dir: Folder for caches; None for $RVOS_EDGE_CACHE or the user's cache folder.
        threads: CPU threads; None for one per physical core.
        threshold: Logit above which a pixel belongs to the object.
        runtime: "python", or "cpp" for the C++ runtime behind the same interface, where it is installed.

    Raises:
        UserError: The bundle is damaged, or the backend, the device or the runtime cannot be used.
    """
    if runtime not in ("python", "cpp"):
        raise UserError(f"runtime '{runtime}' is unknown; use python or cpp.")
    if runtime == "cpp":
        from rvos_edge.cpp import CppSegmenter  # an optional package of its own

        return CppSegmenter(
            shipped_bundle() if path is None else Path(path),
            size=size,
            device=device,
            backend=backend,
            flow=flow,
            cache_dir=cache_dir,
            threads=threads,
            threshold=threshold,
        )
    bundle = Bundle.open(shipped_bundle() if path is None else path, size=size)
    caches = default_cache_dir() if cache_dir is None else Path(cache_dir)

    def load(chosen: Backend) -> Segmenter:
        return Segmenter(
            bundle=bundle,
            backend=chosen,
            cache_dir=None if caches is None else caches / "text",
            flow=flow,
            threshold=threshold,
        )

    # A replayed frame has no times by stage, from which the time for flow could be told.
    record = flow is None or flow.hold_fps is None
    return open_best(bundle, load, backend=backend, device=device, threads=threads, record=record)
