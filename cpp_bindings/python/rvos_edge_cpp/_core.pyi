import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__version__: str

class UserError(ValueError):
    """Bad input; `rvos_edge.UserError` itself where that package is installed."""

class FlowOptions:
    """How much flow to compute; see `rvos_edge.FlowOptions`."""

    def __init__(
        self,
        *,
        enabled: bool = True,
        iterations: int | None = None,
        every: int = 1,
        still: float | None = None,
        hold_fps: float | None = None,
        keep_flow: bool = False,
    ) -> None: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def iterations(self) -> int | None: ...
    @property
    def every(self) -> int: ...
    @property
    def still(self) -> float | None: ...
    @property
    def hold_fps(self) -> float | None: ...
    @property
    def keep_flow(self) -> bool: ...

class FlowDecision:
    """Decision on the flow of one frame; see `rvos_edge.flow.policy.FlowDecision`."""

    @property
    def action(self) -> Literal["run", "keep", "zero"]: ...
    @property
    def reason(self) -> str: ...
    @property
    def iterations(self) -> int: ...
    @property
    def warm(self) -> bool: ...
    @property
    def encode(self) -> bool: ...
    @property
    def late(self) -> bool: ...

class Result:
    """Masks of one frame; the arrays belong to the caller."""

    @property
    def queries(self) -> tuple[str, ...]:
        """The queries, in the order of the first axis of the arrays."""
    @property
    def masks(self) -> NDArray[np.bool_]:
        """bool [Q,H,W] at the size of the frame."""
    @property
    def margins(self) -> NDArray[np.float32]:
        """float32 [Q,h,w], object minus background logit at the network's resolution."""
    @property
    def scores(self) -> NDArray[np.float32]:
        """float32 [Q], mean object probability over the mask, 0 for an empty mask."""
    @property
    def presence(self) -> NDArray[np.float32]:
        """float32 [Q], probability that the query's object is in the frame, smoothed; 1 without a presence head."""
    @property
    def present(self) -> NDArray[np.bool_]:
        """bool [Q], the same decided with hysteresis; masks of absent queries are empty."""
    @property
    def adapted(self) -> NDArray[np.bool_]:
        """bool [Q], queries that were taught by their own masks."""
    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds by stage, in the order they ran."""
    @property
    def flow_used(self) -> bool:
        """True if optical flow was computed on this frame."""
    @property
    def flow(self) -> NDArray[np.float32] | None:
        """float32 [2,h,w], pixels of the network's input; None without `keep_flow`."""
    @property
    def index(self) -> int:
        """Number of the frame since the last reset."""
    @property
    def decision(self) -> FlowDecision | None:
        """Decision on the flow and its reason; None without flow."""

class Segmenter:
    """Segments what the queries name, frame after frame of one video.

    Methods may be called from several threads; one works at a time and the others wait, without holding Python's lock.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        *,
        size: tuple[int, int] | None = None,
        device: str = "auto",
        backend: str = "auto",
        flow: FlowOptions = ...,
        threads: int | None = None,
        threshold: float = 0.0,
        keep_absent: bool = False,
    ) -> None:
        """Open a bundle directory and load its graphs; the arguments are those of `rvos_edge.open`."""
    def set_queries(self, queries: Sequence[str]) -> None:
        """Set the queries from the next frame on; after an error the old queries stay."""
    def check_queries(self, queries: Sequence[str]) -> tuple[str, ...]:
        """Normalised queries, as `set_queries` would take them; nothing changes."""
    @property
    def threshold(self) -> float:
        """Logit above which a pixel belongs to the object."""
    def set_threshold(self, threshold: float) -> None:
        """Set the threshold from the next frame on."""
    @property
    def iterations(self) -> int | None:
        """Updates per computed flow; None without flow."""
    def set_iterations(self, iterations: int) -> None:
        """Set the updates per computed flow from the next frame on."""
    def set_keep_flow(self, keep: bool) -> None:
        """Choose whether results carry the flow from the next frame on."""
    def set_adapt(self, adapt: str, *, background: bool = False) -> None:
        """Choose if queries settle on their own first confident masks: off, once or on."""
    def step(self, frame: NDArray[np.uint8]) -> Result:
        """Segment the next frame, uint8 [H,W,3] BGR; read in place if its rows are contiguous."""
    def reset(self) -> None:
        """Forget the video: the next frame is a first frame. The queries stay."""
    @property
    def queries(self) -> list[str]:
        """The current queries, normalised."""
    @property
    def backend_name(self) -> str:
        """Backend and device, for people."""
    @property
    def backend_reason(self) -> str:
        """Reason for the choice of backend and device."""

def available_backends(bundle: str | os.PathLike[str], device: str = "auto") -> tuple[str, ...]:
    """Backends that are built in and can run a bundle on a device."""
