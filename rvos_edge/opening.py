"""The function behind ``rvos_edge.open``: a bundle, a backend and a runtime become a segmenter."""

from __future__ import annotations

from pathlib import Path

from rvos_edge.bundle import Bundle
from rvos_edge.catalogue import find_bundle
from rvos_edge.engines.base import Backend
from rvos_edge.engines.registry import open_best
from rvos_edge.errors import UserError
from rvos_edge.flow.policy import FlowOptions
from rvos_edge.presence import MIN_PRESENCE
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.segmenter import Segmenter


def open_segmenter(
    path: str | Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    device: str = "auto",
    backend: str = "auto",
    flow: FlowOptions | None = None,
    threads: int | None = None,
    threshold: float = 0.5,
    runtime: str = "python",
    min_presence: float = MIN_PRESENCE,
    adapt: str = "off",
) -> SegmenterProtocol:
    """Open a bundle for segmentation; exported as ``rvos_edge.open``.

    Args:
        path: A bundle's folder, or its name (``rvos-edge bundles``); None for ``edge``, which comes with the package.
        size: Height and width of the network's input, one of those that the bundle was exported for;
            None for the first.
        device: "auto", "cpu", "cuda", or "cuda:1" for the second GPU.
        backend: "auto" for the fastest that works, or one of ``rvos_edge.engines.registry.BACKENDS``.
        flow: Options of the optical flow; None for the defaults.
        threads: CPU threads; None for one per physical core.
        threshold: Probability above which a pixel belongs to the object.
        runtime: "python", or "cpp" for the C++ runtime behind the same interface; a package of its own.
        min_presence: Probability from which a query is present; 0 gives every query its mask.
        adapt: "once" lets each query settle on its own first confident masks, where the bundle has the graph ``teach``
            and the output ``presence``, "on" again after its confidence fell; "off" does not.

    Raises:
        UserError: The bundle is damaged, a probability is out of range, or the backend, the device or the runtime
            cannot be used.
    """
    if runtime not in ("python", "cpp"):
        raise UserError(f"runtime '{runtime}' is unknown; use python or cpp.")
    if runtime == "cpp":
        from rvos_edge.cpp import CppSegmenter  # an optional package of its own

        return CppSegmenter(
            find_bundle(path),
            size=size,
            device=device,
            backend=backend,
            flow=flow,
            threads=threads,
            threshold=threshold,
            min_presence=min_presence,
            adapt=adapt,
        )
    bundle = Bundle.open(find_bundle(path), size=size)

    def load(chosen: Backend) -> Segmenter:
        return Segmenter(
            bundle=bundle, backend=chosen, flow=flow, threshold=threshold, min_presence=min_presence, adapt=adapt
        )

    # A frame that a GPU replays is not timed by stage, and the frame budget needs the time of the flow.
    record = flow is None or flow.hold_fps is None
    return open_best(bundle, load, backend=backend, device=device, threads=threads, record=record)
