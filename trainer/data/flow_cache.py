"""Optical flow on disk: one .npy and one .json per video."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import new_file
from rvos_edge.errors import UserError


@dataclass(frozen=True, kw_only=True)
class FlowKey:
    """Weights and settings on which stored flow depends besides the frames.

    Attributes:
        checkpoint: SHA-256 of the flow network's weights.
        size: Height and width of the images on which flow is computed; its values are pixels of such an image.
        scale: The network reads the image at 1/scale of ``size``.
        iterations: Number of update steps.
    """

    checkpoint: str
    size: tuple[int, int]
    scale: int
    iterations: int


class FlowCache:
    """Flow fields of the videos of one data set, computed with ``key``.

    Example:
        >>> cache = FlowCache("flow/davis", key=key)  # doctest: +SKIP
        >>> cache.write("bear", paths, network.stream(frames))  # doctest: +SKIP
        >>> field = cache.read("bear", 7)  # [2,h,w]  # doctest: +SKIP
    """

    def __init__(self, root: str | Path, *, key: FlowKey) -> None:
        self.root = Path(root)
        self.key = key
        self._open: dict[str, NDArray[np.float16]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def has(self, video: str, frames: Sequence[Path]) -> bool:
        """True if the video's flow is stored, computed with this key from these frames."""
        facts = self._facts(video)
        return facts is not None and self._mismatch(facts, frames) is None

    def write(self, video: str, frames: Sequence[Path], fields: Iterable[NDArray[np.float32]]) -> None:
        """Store the flow of a video, replacing older flow.

        Args:
            frames: File of every frame, in order; a video file repeated where it holds them all.
            fields: One float32 [2,h,w] per frame, in pixels of an image of ``key.size``; zeros for the first.

        Raises:
            ValueError: The number of fields is not that of the frames.
        """
        array = np.stack([np.asarray(field, np.float16) for field in fields])
        if len(array) != len(frames):
            raise ValueError(f"{len(array)} flow fields for {len(frames)} frames of '{video}'")
        self.root.mkdir(parents=True, exist_ok=True)
        facts = {"frames": len(frames), "digest": _digest(frames), "key": asdict(self.key)}
        # The .json goes last: it vouches for a complete array.
        self._path(video, ".json").unlink(missing_ok=True)
        for suffix in (".npy", ".json"):
            final = self._path(video, suffix)
            with new_file(final) as temporary, temporary.open("wb") as file:
                if suffix == ".npy":
                    np.save(file, np.nan_to_num(array, posinf=0, neginf=0), allow_pickle=False)
                else:
                    file.write(json.dumps(facts, indent=1).encode())
        self._open.pop(video, None)

    def read(self, video: str, index: int) -> NDArray[np.float16]:
        """The field of a frame, float16 [2,h,w] (a view of the file), in pixels of an image of ``key.size``.

        Raises:
            UserError: The flow is missing or damaged.
        """
        if video not in self._open:
            facts = self._facts(video)
            if facts is None:
                raise UserError(f"no flow of '{video}' in {self.root}: compute the flow of this data set first")
            path = self._path(video, ".npy")
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise UserError(f"the flow file {path} is damaged: delete it and compute the flow again") from error
            if array.ndim != 4 or array.shape[:2] != (facts["frames"], 2) or array.dtype != np.float16:
                raise UserError(f"the flow file {path} is not what its .json says: delete both and compute it again")
            self._open[video] = array
        field: NDArray[np.float16] = self._open[video][index]
        return field

    def check(self, video: str, frames: Sequence[Path]) -> None:
        """Raise `UserError` unless the stored flow was computed with this key from these frames."""
        facts = self._facts(video)
        if facts is None:
            raise UserError(f"no flow of '{video}' in {self.root}: compute the flow of this data set first")
        reason = self._mismatch(facts, frames)
        if reason is not None:
            raise UserError(f"the flow of '{video}' in {self.root} has {reason}: compute it again")

    def _path(self, video: str, suffix: str) -> Path:
        if not video or Path(video).name != video:
            raise UserError(f"'{video}' is not a video name: it must be a plain folder name")
        return self.root / f"{video}{suffix}"

    def _facts(self, video: str) -> dict[str, Any] | None:
        path = self._path(video, ".json")
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(facts["frames"], int) or "digest" not in facts or "key" not in facts:
                raise ValueError
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged: delete it and compute the flow again") from error
        return cast("dict[str, Any]", facts) if self._path(video, ".npy").is_file() else None

    def _mismatch(self, facts: dict[str, Any], frames: Sequence[Path]) -> str | None:
        if facts["key"] != json.loads(json.dumps(asdict(self.key))):
            return "other settings or weights"
        return "other frames" if facts["digest"] != _digest(frames) else None


def _digest(frames: Sequence[Path]) -> str:
    sizes = {path: path.stat().st_size if path.is_file() else "missing" for path in set(frames)}
    text = "\n".join(f"{path.name} {sizes[path]}" for path in frames)
    return hashlib.sha256(text.encode()).hexdigest()
