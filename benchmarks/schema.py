"""The JSON of a benchmark: what was measured, on what, with what, in which state. Any runtime of a bundle may write it.

Example:
    >>> result = read_result(Path("benchmarks/results/orin.json"))  # doctest: +SKIP
    >>> result.runs[0].end_to_end.p50  # doctest: +SKIP
    71.3
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rvos_edge.bundle import Arithmetic
from rvos_edge.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Self

FORMAT_VERSION: Final = 1
_NUMBERS = re.compile(r"\[\s+((?:-?[0-9.]+|null)(?:,\s+(?:-?[0-9.]+|null))*)\s+\]")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class LatencyPercentiles(_Strict):
    """Milliseconds; linear interpolation between the measured values."""

    p50: float = Field(ge=0)
    p90: float = Field(ge=0)
    p99: float = Field(ge=0)


class StartUp(_Strict):
    """Seconds in a fresh process, from starting it to its first mask; the median start of several."""

    starts: int = Field(ge=1)
    total_s: float = Field(ge=0)
    imports_s: float = Field(ge=0)
    """Starting the process and loading its libraries."""
    open_s: float = Field(ge=0)
    """Verifying the bundle and loading its graphs."""
    queries_s: float = Field(ge=0)
    """Encoding the queries, none of them remembered."""
    first_frame_s: float = Field(ge=0)


class Memory(_Strict):
    """Peak of a fresh process that segments a few frames, in MiB."""

    host_mib: float = Field(ge=0)
    """Largest resident set."""
    device_mib: float | None = None
    """What the memory in use of the GPU grew by; None without one, and on a Jetson, which shares the host's."""


class Camera(_Strict):
    """What a camera of ``fps`` would have lost: the measured times replayed against it, the newest frame next."""

    fps: float = Field(gt=0)
    arrived: int = Field(ge=0)
    segmented: int = Field(ge=0)
    dropped: int = Field(ge=0)


class StageTimes(_Strict):
    """Microseconds of every frame, in order."""

    frame_us: tuple[int, ...]
    stages_us: dict[str, tuple[int | None, ...]]
    """None on the frames where the stage did not run."""


class BenchmarkRun(_Strict):
    """One backend."""

    backend: str
    runtime: str
    """Backend, version and device, for people."""
    reason: str
    """Why it ran where it ran."""
    end_to_end: LatencyPercentiles
    """From frame to masks of the frame's size."""
    fps: float = Field(gt=0)
    """Frames divided by the sum of their times."""
    stages: dict[str, LatencyPercentiles]
    start_up: StartUp | None = None
    memory: Memory | None = None
    camera: Camera | None = None
    times: StageTimes | None = None


class BundleFacts(_Strict):
    """What ran."""

    name: str
    preset: str
    fingerprint: str
    """``Bundle.fingerprint``."""
    size: tuple[int, int]
    """Height and width of the network's input."""
    frame_flops: int = Field(ge=0)
    weight_bytes: int = Field(ge=0)
    precision: dict[str, Arithmetic]
    """By graph."""


class Workload(_Strict):
    """What it ran on."""

    source: str
    """Name without folders."""
    frame_size: tuple[int, int]
    frames: int = Field(ge=1)
    """Measured; they follow the warm-up without a break."""
    distinct: int = Field(ge=1)
    """Different pictures: when they end they are shown backwards, and so on."""
    warmup: int = Field(ge=0)
    queries: int = Field(ge=1)
    flow_iterations: int = Field(ge=0)
    """0 without flow."""
    threads: int | None = None
    """None: as many as the backend likes."""
    interleaved: bool
    """Whether the backends took turns on the same frames, so that their times are paired."""


class Machine(_Strict):
    """Where it ran. No names of hosts or people."""

    name: str
    """What to call it in a table: the Jetson's model, the GPU, or the CPU."""
    cpu: str
    cores: int = Field(ge=1)
    """Those that the process may use."""
    memory_mib: int = Field(ge=0)
    gpu: str | None = None
    system: str


class State(_Strict):
    """How the machine fared at one moment; what it does not tell is absent or None."""

    load_average: float | None = None
    """Of the last minute."""
    governors: tuple[str, ...] = ()
    """Of the CPU's frequency."""
    clocks_locked: bool | None = None
    """Whether no clock may move, as after ``jetson_clocks``."""
    power_mode: str | None = None
    """``nvpmodel``, on a Jetson."""
    temperatures_c: dict[str, float] = {}
    """By thermal zone."""
    gpu: dict[str, str] = {}
    """What nvidia-smi says: clocks, power, temperature, reasons for throttling."""


class BenchmarkResult(_Strict):
    """A whole benchmark."""

    format_version: Literal[1] = FORMAT_VERSION
    made: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
    """UTC."""
    tool: str
    commit: str | None = None
    """Of the source; ``+`` at the end if it was changed since. None if it is not a checkout."""
    machine: Machine
    bundle: BundleFacts
    workload: Workload
    versions: dict[str, str]
    before: State
    after: State
    runs: tuple[BenchmarkRun, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        backends = [run.backend for run in self.runs]
        if len(set(backends)) < len(backends):
            raise ValueError("a backend occurs twice")
        for run in self.runs:
            if run.times is None:
                continue
            for name, times in {"frame_us": run.times.frame_us, **run.times.stages_us}.items():
                if len(times) != self.workload.frames:
                    raise ValueError(f"{run.backend} has {len(times)} times for '{name}', not {self.workload.frames}")
        return self

    def run(self, backend: str) -> BenchmarkRun:
        """The run of a backend; KeyError without one."""
        return {run.backend: run for run in self.runs}[backend]


def to_json(result: BenchmarkResult) -> str:
    """Readable, with each list of times on a line of its own."""
    text = json.dumps(result.model_dump(mode="json"), indent=1)
    return _NUMBERS.sub(lambda match: f"[{','.join(match[1].split(',')).translate(_NO_SPACE)}]", text) + "\n"


_NO_SPACE = {ord(blank): None for blank in " \n"}


def read_result(path: Path) -> BenchmarkResult:
    """Read a result.

    Raises:
        UserError: It is missing, damaged or of another format version.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a file that 'bench --json' wrote.") from error
    except ValueError as error:
        raise UserError(f"{path} is not readable JSON ({error}); measure again.") from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if version is not None and version != FORMAT_VERSION:
        raise UserError(f"{path} has format version {version}, this program reads {FORMAT_VERSION}; measure again.")
    try:
        return BenchmarkResult.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        message = first["msg"].removeprefix("Value error, ").lower()
        raise UserError(f"{path}: '{where}': {message}; it is no result of 'rvos-edge bench'.") from error
