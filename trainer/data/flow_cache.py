"""Optical flow of training videos: on disk, one .npy and one .json per video, or computed when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import new_file
from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.base import ReferringClips

STORES = {"float16": 2.0, "uint8": 1.0, "half": 0.5}
"""Forms of stored flow, with their bytes per value: ``uint8`` in 255 steps between the least and the largest value of a
frame, ``half`` float16 at half the resolution."""


_LEAD = 3
"""Frames before the one whose flow is computed alone: its warm start needs them."""


class FlowSource(Protocol):
    """The part of ``FlowNetwork`` that live flow needs."""

    def stream(self, *videos: Iterable[NDArray[np.uint8]]) -> Iterable[NDArray[np.float32]]:
        """Flow of each frame to the one before, [N,2,h,w]."""


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
    """Flow fields of the videos of one data set, computed with ``key`` and stored in a form of ``STORES``.

    Example:
        >>> cache = FlowCache("flow/davis", key=key)  # doctest: +SKIP
        >>> cache.write("bear", paths, network.stream(frames))  # doctest: +SKIP
        >>> field = cache.read("bear", 7)  # [2,h,w]  # doctest: +SKIP
    """

    def __init__(self, root: str | Path, *, key: FlowKey, store: str = "float16") -> None:
        self.root = Path(root)
        self.key, self.store = key, store
        self._open: dict[str, tuple[NDArray[Any], Any]] = {}

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
        packed = [self._pack(np.nan_to_num(np.asarray(field, np.float16), posinf=0, neginf=0)) for field in fields]
        array = np.stack([part for part, _ in packed])
        if len(array) != len(frames):
            raise ValueError(f"{len(array)} flow fields for {len(frames)} frames of '{video}'")
        self.root.mkdir(parents=True, exist_ok=True)
        facts = {"frames": len(frames), "digest": _digest(frames), "key": asdict(self.key)}
        if self.store == "uint8":
            facts["ranges"] = [limits for _, limits in packed]
        # The .json goes last: it vouches for a complete array.
        self._path(video, ".json").unlink(missing_ok=True)
        for suffix in (".npy", ".json"):
            final = self._path(video, suffix)
            with new_file(final) as temporary, temporary.open("wb") as file:
                if suffix == ".npy":
                    np.save(file, array, allow_pickle=False)
                else:
                    file.write(json.dumps(facts, indent=1).encode())
        self._open.pop(video, None)

    def read(self, video: str, index: int) -> NDArray[np.floating]:
        """The field of a frame, [2,h,w] (a view of the file where it can be), in pixels of an image of ``key.size``.

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
            wanted = np.uint8 if self.store == "uint8" else np.float16
            ranges = facts.get("ranges", ())
            fits = self.store != "uint8" or np.shape(ranges) == (facts["frames"], 2, 2)
            if array.ndim != 4 or array.shape[:2] != (facts["frames"], 2) or array.dtype != wanted or not fits:
                raise UserError(f"the flow file {path} is not what its .json says: delete both and compute it again")
            self._open[video] = array, ranges
        array, ranges = self._open[video]
        if not ranges:
            return cast("NDArray[np.floating]", array[index])
        low, high = np.asarray(ranges[index], np.float32).T[:, :, None, None]
        return cast("NDArray[np.floating]", low + array[index] * ((high - low) / 255))

    def check(self, video: str, frames: Sequence[Path]) -> None:
        """Raise `UserError` unless the stored flow was computed with this key from these frames."""
        facts = self._facts(video)
        if facts is None:
            raise UserError(f"no flow of '{video}' in {self.root}: compute the flow of this data set first")
        reason = self._mismatch(facts, frames)
        if reason is not None:
            raise UserError(f"the flow of '{video}' in {self.root} has {reason}: compute it again")

    def _pack(self, field: NDArray[np.float16]) -> tuple[NDArray[Any], list[list[float]]]:
        """A field in the form of the store, and the least and largest value of x and y."""
        if self.store == "half":
            size = (field.shape[2] // 2, field.shape[1] // 2)
            planes = cv2.resize(field.astype(np.float32).transpose(1, 2, 0), size, interpolation=cv2.INTER_AREA)
            return planes.transpose(2, 0, 1).astype(np.float16), []
        if self.store != "uint8":
            return field, []
        wide = field.astype(np.float32)
        low, high = wide.min(axis=(1, 2), keepdims=True), wide.max(axis=(1, 2), keepdims=True)
        steps = np.rint((wide - low) / np.maximum(high - low, 1e-6) * 255).astype(np.uint8)
        return steps, np.stack([low, high], axis=1)[..., 0, 0].tolist()

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


class LiveFlow:
    """Flow that is computed when it is read, in place of a ``FlowCache``: no disk, and much more time.

    Args:
        network: The flow network; on a GPU the loader must run in the training process (``workers: 0``).
    """

    def __init__(self, clips: ReferringClips, network: FlowSource, *, key: FlowKey) -> None:
        self.clips, self.network, self.key = clips, network, key

    def check(self, video: str, frames: Sequence[Path]) -> None:
        """Nothing is stored that could be of other frames."""

    def read(self, video: str, index: int) -> NDArray[np.floating]:
        """The field of a frame, float32 [2,h,w], in pixels of an image of ``key.size``.

        It starts warm from the flow of the frames before, as the runtime's does.

        Raises:
            DamagedFileError: A frame cannot be read.
        """
        size = self.key.size[::-1]
        frames = (
            np.asarray(cv2.resize(self.clips.image(video, i), size, interpolation=cv2.INTER_LINEAR), np.uint8)
            for i in range(max(0, index - _LEAD), index + 1)
        )
        *_, last = self.network.stream(frames)
        return cast("NDArray[np.floating]", last[0])


def _digest(frames: Sequence[Path]) -> str:
    sizes = {path: path.stat().st_size if path.is_file() else "missing" for path in set(frames)}
    text = "\n".join(f"{path.name} {sizes[path]}" for path in frames)
    return hashlib.sha256(text.encode()).hexdigest()
