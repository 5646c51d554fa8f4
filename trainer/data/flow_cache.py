"""Optical flow computed once per video and kept on disk: one .npy and one .json per video."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import new_file
from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.images import read_image

Estimate = Callable[[Iterable[NDArray[np.uint8]]], Iterator[NDArray[np.float32]]]


@dataclass(frozen=True, kw_only=True)
class FlowKey:
    """What the stored numbers depend on besides the frames.

    Attributes:
        checkpoint: sha256 of the flow network's weights.
        size: (H,W) of the images the flow is computed on; the values are pixels of such an image.
        scale: the network sees the image at 1/scale of ``size``.
        iterations: update steps.
    """

    checkpoint: str
    size: tuple[int, int]
    scale: int
    iterations: int


class FlowCache:
    """Flow fields of the videos of one data set.

    Example:
        >>> key = FlowKey(checkpoint=sha, size=(288, 512), scale=2, iterations=6)  # doctest: +SKIP
        >>> store = FlowStore("flow/davis", key=key)  # doctest: +SKIP
        >>> store.build("bear", sorted(folder.glob("*.jpg")), estimate)  # doctest: +SKIP
        >>> field = store.read("bear", 7)  # [2,h,w]  # doctest: +SKIP

    Args:
        root: the store's folder.
        key: what the flow must have been made with; None reads whatever is there (and cannot build).
    """

    def __init__(self, root: str | Path, *, key: FlowKey | None = None) -> None:
        self.root = Path(root)
        self.key = key
        self._open: dict[str, tuple[NDArray[np.float16], tuple[int, int]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def has(self, video: str, frames: Sequence[Path] | None = None) -> bool:
        """Whether the video's flow is there, made with this key and (when given) from these frames."""
        facts = self._facts(video)
        return facts is not None and self._mismatch(facts, frames) is None

    def build(
        self,
        video: str,
        frames: Sequence[Path],
        estimate: Estimate,
        *,
        images: Iterable[NDArray[np.uint8]] | None = None,
        rebuild: bool = False,
    ) -> bool:
        """Compute and store one video's flow; what is already there and fits is kept.

        Args:
            video: the name to store it under.
            frames: the file of every frame, in order; one video file again and again where it holds them all.
            estimate: takes the frames (BGR uint8 [H,W,3] at the key's size) and yields one float32 [2,h,w] per frame
                (the first frame's is zero), or one less than frames, then the first frame's zero field is added here.
            images: the frames in order, BGR uint8 [H,W,3] at any size; read from ``frames`` when None.
            rebuild: replace flow that belongs to other frames or settings instead of refusing.

        Returns:
            True when flow was computed, False when it was there.

        Raises:
            UserError: other frames or settings are stored under this name, or a frame cannot be read.
        """
        if self.key is None:
            raise UserError(f"cannot build flow in {self.root}: it was opened for reading, pass the flow settings")
        facts = self._facts(video)
        if facts is not None:
            reason = self._mismatch(facts, frames)
            if reason is None:
                return False
            if not rebuild:
                raise UserError(
                    f"the flow of '{video}' in {self.root} has {reason}: choose another folder or ask to rebuild it"
                )
        fields = [np.asarray(field, np.float16) for field in estimate(self._resized(images or map(read_image, frames)))]
        if len(fields) == len(frames) - 1:
            fields.insert(0, np.zeros_like(fields[0]) if fields else np.zeros((2, 1, 1), np.float16))
        if len(fields) != len(frames):
            raise ValueError(f"the estimator yielded {len(fields)} fields for {len(frames)} frames of '{video}'")
        array = np.nan_to_num(np.stack(fields), posinf=0, neginf=0)
        self._write(video, array, frames)
        self._open.pop(video, None)
        return True

    def read(self, video: str, index: int) -> NDArray[np.float16]:
        """One stored field, float16 [2,h,w] (a view of the file), in pixels of an image of `image_size`."""
        field: NDArray[np.float16] = self._array(video)[0][index]
        return field

    def image_size(self, video: str) -> tuple[int, int]:
        """(H,W) of the images whose pixels the stored values count."""
        return self._array(video)[1]

    def check(self, video: str, frames: Sequence[Path]) -> None:
        """Raise `UserError` unless the stored flow is that of these frames and this key."""
        facts = self._facts(video)
        if facts is None:
            raise UserError(f"no flow of '{video}' in {self.root}: compute the flow of this data set first")
        reason = self._mismatch(facts, frames)
        if reason is not None:
            raise UserError(f"the flow of '{video}' in {self.root} has {reason}: compute it again")

    def _array(self, video: str) -> tuple[NDArray[np.float16], tuple[int, int]]:
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
            height, width = facts["key"]["size"]
            self._open[video] = array, (int(height), int(width))
        return self._open[video]

    def _path(self, video: str, suffix: str) -> Path:
        if not video or Path(video).name != video:
            raise UserError(f"'{video}' is not a video name: it must be a plain folder name")
        return self.root / f"{video}{suffix}"

    def _facts(self, video: str) -> dict[str, Any] | None:
        path = self._path(video, ".json")
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            size = facts["key"]["size"]
            if not isinstance(facts["frames"], int) or len(size) != 2 or "digest" not in facts:
                raise ValueError
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged: delete it and compute the flow again") from error
        return cast("dict[str, Any]", facts) if self._path(video, ".npy").is_file() else None

    def _mismatch(self, facts: dict[str, Any], frames: Sequence[Path] | None) -> str | None:
        if self.key is not None and facts["key"] != json.loads(json.dumps(asdict(self.key))):
            return "other settings or weights"
        if frames is not None and facts["digest"] != _digest(frames):
            return "other frames"
        return None

    def _resized(self, images: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        assert self.key is not None
        height, width = self.key.size
        for image in images:
            yield cast("NDArray[np.uint8]", cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))

    def _write(self, video: str, array: NDArray[np.float16], frames: Sequence[Path]) -> None:
        assert self.key is not None
        self.root.mkdir(parents=True, exist_ok=True)
        facts = {"frames": len(frames), "digest": _digest(frames), "key": asdict(self.key)}
        # The .json goes last: only a whole array is ever believed.
        self._path(video, ".json").unlink(missing_ok=True)
        for suffix in (".npy", ".json"):
            final = self._path(video, suffix)
            with new_file(final) as temporary, temporary.open("wb") as file:
                if suffix == ".npy":
                    np.save(file, array, allow_pickle=False)
                else:
                    file.write(json.dumps(facts, indent=1).encode())


def _digest(frames: Sequence[Path]) -> str:
    sizes = {path: path.stat().st_size if path.is_file() else "missing" for path in set(frames)}
    text = "\n".join(f"{path.name} {sizes[path]}" for path in frames)
    return hashlib.sha256(text.encode()).hexdigest()
