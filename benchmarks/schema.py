"""The JSON format of benchmark results; any runtime of a bundle may write it.

Example:
    >>> result = read_result(Path("benchmarks/results/orin.json"))  # doctest: +SKIP
    >>> result.runs[0].end_to_end.p50  # doctest: +SKIP
    71.3
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from rvos_edge.errors import UserError
from rvos_edge.manifest import Arithmetic
from rvos_edge.strict import StrictModel

FORMAT_VERSION: Final = 1
_NUMBERS = re.compile(r"\[\s+((?:-?[0-9.]+|null)(?:,\s+(?:-?[0-9.]+|null))*)\s+\]")


class _Strict(StrictModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class LatencyPercentiles(_Strict):
    """Percentiles in milliseconds, by linear interpolation."""

    p50: float = Field(ge=0)
    p90: float = Field(ge=0)
    p99: float = Field(ge=0)


class StartUp(_Strict):
    """Seconds from the start of a fresh process to its first mask; the median of several starts."""

    starts: int = Field(ge=1)
    total_s: float = Field(ge=0)
    imports_s: float = Field(ge=0)
    """Starting the process and importing its libraries."""
    open_s: float = Field(ge=0)
    """Verifying the bundle and loading its graphs."""
    queries_s: float = Field(ge=0)
    """Encoding the queries, without a cache."""
    first_frame_s: float = Field(ge=0)


class Memory(_Strict):
    """Peak memory of a fresh process that segments a few frames, in MiB."""

    host_mib: float = Field(ge=0)
    """Peak resident set size."""
    device_mib: float | None = None
    """Growth of the GPU's memory in use; None without a GPU, and on a Jetson, where memory is shared."""


class Camera(_Strict):
    """Frames that a camera would have dropped: the measured times replayed against it, always taking the newest."""

    fps: float = Field(gt=0)
    arrived: int = Field(ge=0)
    segmented: int = Field(ge=0)
    dropped: int = Field(ge=0)


class StageTimes(_Strict):
    """Times of every frame in microseconds, in order."""

    frame_us: tuple[int, ...]
    stages_us: dict[str, tuple[int | None, ...]]
    """By stage; None where it did not run."""


class BenchmarkRun(_Strict):
    """Measurements of one backend."""

    backend: str
    runtime: str
    """Backend, version and device, for display."""
    reason: str
    """Reason for the choice of the device."""
    end_to_end: LatencyPercentiles
    """From the frame to masks of the frame's size."""
    fps: float = Field(gt=0)
    """Number of frames over the sum of their times."""
    stages: dict[str, LatencyPercentiles]
    start_up: StartUp | None = None
    memory: Memory | None = None
    camera: Camera | None = None
    times: StageTimes | None = None


class BundleFacts(_Strict):
    """The measured bundle."""

    name: str
    preset: str
    fingerprint: str
    """``Bundle.fingerprint``."""
    size: tuple[int, int]
    """Height and width of the network's input."""
    frame_flops: int = Field(ge=0)
    weight_bytes: int = Field(ge=0)
    precision: dict[str, Arithmetic]
    """Arithmetic by graph."""


class Workload(_Strict):
    """Frames and queries of a benchmark."""

    source: str
    """Name without folders."""
    frame_size: tuple[int, int]
    """Height and width."""
    frames: int = Field(ge=1)
    """Number of measured frames; they follow the warm-up without a break."""
    distinct: int = Field(ge=1)
    """Number of different frames; they are played forwards and backwards."""
    warmup: int = Field(ge=0)
    queries: int = Field(ge=1)
    flow_iterations: int = Field(ge=0)
    """0 without flow."""
    threads: int | None = None
    """None: the backend's choice."""
    interleaved: bool
    """True if backends took turns on the same frames, so that their times are paired."""


class Machine(_Strict):
    """The machine, without host or user names."""

    name: str
    """Name in tables: the Jetson's model, the GPU or the CPU."""
    cpu: str
    cores: int = Field(ge=1)
    """Cores that the process may use."""
    memory_mib: int = Field(ge=0)
    gpu: str | None = None
    system: str


class State(_Strict):
    """State of the machine at one moment; unknown facts are absent or None."""

    load_average: float | None = None
    """Load average of the last minute."""
    governors: tuple[str, ...] = ()
    """CPU frequency governors."""
    clocks_locked: bool | None = None
    """True if all clocks are fixed, as after ``jetson_clocks``."""
    power_mode: str | None = None
    """Power mode of ``nvpmodel`` on a Jetson."""
    temperatures_c: dict[str, float] = Field(default_factory=dict)
    """Degrees Celsius by thermal zone."""
    gpu: dict[str, str] = Field(default_factory=dict)
    """Output of nvidia-smi: clocks, power, temperature, reasons for throttling."""


class BenchmarkResult(_Strict):
    """A benchmark."""

    format_version: Literal[1] = FORMAT_VERSION
    made: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
    """Date and time in UTC."""
    tool: str
    commit: str | None = None
    """Commit of the source, with ``+`` appended if modified; None if not a checkout."""
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


def to_json(result: BenchmarkResult) -> str:
    """The result as indented JSON, each list of times on one line."""
    text = json.dumps(result.model_dump(mode="json"), indent=1)
    return _NUMBERS.sub(lambda match: f"[{','.join(match[1].split(',')).translate(_NO_SPACE)}]", text) + "\n"


_NO_SPACE = {ord(blank): None for blank in " \n"}


def read_result(path: Path) -> BenchmarkResult:
    """Read a result file.

    Raises:
        UserError: The file is missing, damaged or of another format version.
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
