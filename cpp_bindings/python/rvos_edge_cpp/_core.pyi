import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__version__: str

class UserError(ValueError):
    """Bad input; `rvos_edge.UserError` itself where that package is installed."""

class FlowOptions:
    """How much flow is worth computing; see `rvos_edge.FlowOptions`."""

    def __init__(
        self,
        *,
        enabled: bool = True,
        iterations: int | None = None,
        every: int = 1,
        warm_start: bool = True,
        scene_cut: float | None = 30.0,
        still: float | None = None,
        hold_fps: float | None = None,
        keep_frames: int = 4,
        keep_flow: bool = False,
    ) -> None: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def iterations(self) -> int | None: ...
    @property
    def every(self) -> int: ...
    @property
    def warm_start(self) -> bool: ...
    @property
    def scene_cut(self) -> float | None: ...
    @property
    def still(self) -> float | None: ...
    @property
    def hold_fps(self) -> float | None: ...
    @property
    def keep_frames(self) -> int: ...
    @property
    def keep_flow(self) -> bool: ...

class FlowDecision:
    """What was done about the flow of one frame; see `rvos_edge.flow.policy.FlowDecision`."""

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
    """The masks of one frame; the arrays are the caller's."""

    @property
    def queries(self) -> tuple[str, ...]:
        """What was asked for, in the order of the first axis of the arrays."""
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
    def timings(self) -> dict[str, float]:
        """Milliseconds by stage, in the order they ran."""
    @property
    def flow_used(self) -> bool:
        """Whether optical flow was computed on this frame."""
    @property
    def flow(self) -> NDArray[np.float32] | None:
        """float32 [2,h,w], pixels of the network's input; None unless asked for."""
    @property
    def index(self) -> int:
        """Number of the frame since the last reset."""
    @property
    def decision(self) -> FlowDecision | None:
        """What was done about the flow and why; None where there is none."""

class Segmenter:
    """Segments what the queries name, frame after frame of one video.

    Methods may be called from several threads: one at a time works, the others wait. Python's lock is free meanwhile.
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
    ) -> None:
        """Open a bundle directory and load its graphs; the arguments are those of `rvos_edge.open`."""
    def set_queries(self, queries: Sequence[str]) -> None:
        """Say what to segment from the next frame on; on an error the old queries stay."""
    def step(self, frame: NDArray[np.uint8]) -> Result:
        """Segment the next frame, uint8 [H,W,3] BGR; read in place where its rows are in order."""
    def reset(self) -> None:
        """Forget the video: the next frame is a first frame. The queries stay."""
    @property
    def queries(self) -> tuple[str, ...]:
        """What is being segmented."""
    @property
    def backend_name(self) -> str:
        """Backend and device, for people."""
    @property
    def backend_reason(self) -> str:
        """Why that backend and device were chosen."""

def available_backends(bundle: str | os.PathLike[str], device: str = "auto") -> tuple[str, ...]:
    """The backends that are built in and can run a bundle on a device."""
