"""A2D-Sentences: expressions about the actors and actions of the Actor-Action Dataset."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.base import GIVE_EXPRESSIONS, ClipsReader, Query, few, tidy
from rvos_edge.trainer.data.readers.images import DamagedFileError, check_sizes, read_image, read_size
from rvos_edge.trainer.data.readers.video import VideoFrames

_USAGE = {"train": "0", "test": "1"}
# Faults of the published files: a video with sentences but no masks, and a line whose instance is "1 (copy)".
_WITHOUT_MASKS = "e7Kjy13woXg"
_COPY = "(copy)"


class A2dClips(ClipsReader):
    """A2D-Sentences (Gavrilyuk et al., CVPR 2018).

        ROOT/Release/videoset.csv                       a video a line: id, ..., 0 = train or 1 = test
        ROOT/Release/clips320H/VIDEO.mp4                or its frames: ROOT/Release/pngs320H/VIDEO/NNNNN.png
        ROOT/text_annotations/a2d_annotation.txt        video_id,instance_id,query
        ROOT/text_annotations/a2d_missed_videos.txt     videos without sentences (optional)
        ROOT/text_annotations/a2d_annotation_with_instances/VIDEO/NNNNN.h5

    The files of text_annotations may also lie in ROOT or ROOT/Release. Frames are numbered from 1; three to five frames
    of a video are annotated. An instance that is not visible in an annotated frame has an empty mask; official
    evaluation leaves such pairs out. The key of a query is its instance, with ``.2`` and so on appended where an
    instance has several expressions.

    Args:
        split: "train", "test" or "all".
        expressions: The file a2d_annotation.txt, where it lies elsewhere.

    Raises:
        UserError: A folder or file is missing or of another form, or the expressions name unknown videos.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        expressions: str | Path | None = None,
        videos: Sequence[str] | None = None,
    ) -> None:
        root = Path(root)
        if split not in (*_USAGE, "all"):
            raise UserError(f"'{split}' is not a split of A2D-Sentences: say train, test or all")
        release = root / "Release"
        usage = _read_usage(release / "videoset.csv")
        self._clips, self._pngs = release / "clips320H", release / "pngs320H"
        if not self._clips.is_dir() and not self._pngs.is_dir():
            raise UserError(f"neither {self._clips} nor {self._pngs} exists: add the videos or their frames")
        self._masks = find_annotation(root, "a2d_annotation_with_instances")
        path = Path(expressions) if expressions else find_annotation(root, "a2d_annotation.txt")
        queries = _read_sentences(path)
        unknown = [video for video in queries if video not in usage]
        if unknown:
            raise UserError(f"{path} names {len(unknown)} videos that videoset.csv does not have ({few(unknown)})")
        missed = find_annotation(root, "a2d_missed_videos.txt")
        skipped = {_WITHOUT_MASKS, *(missed.read_text(encoding="utf-8").split() if missed.is_file() else ())}
        known = {video: queries[video] for video in usage if video in queries and video not in skipped}
        if videos is None:
            videos = [video for video in known if split == "all" or usage[video] == _USAGE[split]]
        super().__init__(root, known, videos)
        self._video = VideoFrames()

    def annotated(self, video: str) -> list[int]:
        """Indices of the frames with an HDF5 file, ascending."""
        names = (path.stem for path in (self._masks / video).glob("[!.]*.h5"))
        return sorted(int(name) - 1 for name in names if name.isdecimal())

    def image_path(self, video: str, index: int) -> Path:
        """Image file of a frame where the frames are extracted, otherwise the video file."""
        if (self._pngs / video).is_dir():
            return self._pngs / video / f"{index + 1:05d}.png"
        return self._mp4(video)

    def image(self, video: str, index: int) -> NDArray[np.uint8]:
        """A frame, BGR uint8 [H,W,3].

        Raises:
            DamagedFileError: The file is missing or damaged.
        """
        path = self.image_path(video, index)
        return self._video.read(path, index) if path.suffix == ".mp4" else read_image(path)

    def masks(self, video: str, index: int) -> NDArray[np.bool_] | None:
        """Ground truth of a frame, bool [N,H,W]; None where there is no HDF5 file.

        Raises:
            UserError: The file is damaged or of another size than the frame.
        """
        path = self._masks / video / f"{index + 1:05d}.h5"
        if not path.is_file():
            return None
        instances, masks = read_instances(path)
        image = self.image_path(video, index)
        check_sizes(masks.shape[1:], self._video.size(image) if image.suffix == ".mp4" else read_size(image), path)
        empty = np.zeros(masks.shape[1:], np.bool_)
        by_id: dict[int | None, NDArray[np.bool_]] = {}
        # One official file lists an instance twice, with a mask for the first entry only.
        for number, mask in zip(instances, masks, strict=False):
            by_id.setdefault(number, mask)
        return np.stack([by_id.get(query.object_id, empty) for query in self.queries(video)])

    def _list_frames(self, video: str) -> Sequence[str]:
        folder = self._pngs / video
        if folder.is_dir():
            return sorted(path.stem for path in folder.glob("[!.]*.png"))
        return [f"{i + 1:05d}" for i in range(self._video.count(self._mp4(video)))]

    def _mp4(self, video: str) -> Path:
        return self._clips / f"{video}.mp4"


def find_annotation(root: Path, name: str) -> Path:
    """Path of a file or folder of the annotation, which is published apart from the videos and lies in one of three
    places.
    """
    places = [root / "text_annotations" / name, root / name, root / "Release" / name]
    return next((path for path in places if path.exists()), places[0])


def read_instances(path: Path) -> tuple[list[int], NDArray[np.bool_]]:
    """Instance ids of an annotated frame and their masks, bool [N,H,W].

    Raises:
        DamagedFileError: The file is damaged.
        UserError: h5py is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise UserError('the masks of A2D need h5py: run pip install "rvos-edge[train]"') from error
    try:
        with h5py.File(path, "r") as file:
            instances, masks = np.asarray(file["instance"]), np.asarray(file["reMask"])
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise DamagedFileError(f"the masks {path} are damaged: restore the file or leave it out") from error
    # MATLAB stores columns first, and drops the instance axis where there is one instance.
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.ndim != 3:
        raise DamagedFileError(f"the masks {path} have the shape {masks.shape}, not instances, width, height")
    return [int(number) for number in instances.reshape(-1)], masks.transpose(0, 2, 1) > 0


def _read_usage(path: Path) -> dict[str, str]:
    """Usage by video: "0" (train) or "1" (test)."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: give the folder that holds Release/videoset.csv")
    out = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row:
                continue
            if len(row) < 9 or row[8].strip() not in _USAGE.values():
                raise UserError(f"{path}, line {number} is not a line of videoset.csv: it needs nine columns")
            out[row[0].strip()] = row[8].strip()
    return out


def _read_sentences(path: Path) -> dict[str, tuple[Query, ...]]:
    found: dict[str, list[Query]] = {}
    for number, (video, *rest) in read_rows(path, "video_id"):
        if len(rest) < 2 or not (rest[0].isdecimal() or rest[0].endswith(_COPY)):
            raise UserError(f"{path}, line {number} is not of the form video_id,instance_id,query")
        if rest[0].endswith(_COPY):
            continue
        queries = found.setdefault(video, [])
        again = sum(query.object_id == int(rest[0]) for query in queries)
        key = f"{int(rest[0])}.{again + 1}" if again else f"{int(rest[0])}"
        queries.append(Query(key, tidy(",".join(rest[1:])), int(rest[0])))
    return {video: tuple(queries) for video, queries in found.items()}


def read_rows(path: Path, heading: str) -> list[tuple[int, list[str]]]:
    """Rows of a comma-separated file with their line numbers, without the heading and empty lines.

    Raises:
        UserError: The file does not exist or is empty.
    """
    if not path.is_file():
        raise UserError(f"the expressions {path} do not exist: {GIVE_EXPRESSIONS}")
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = [(n, [cell.strip() for cell in row]) for n, row in enumerate(csv.reader(file), start=1) if row]
    rows = [(number, row) for number, row in rows if row[0] != heading]
    if not rows:
        raise UserError(f"{path} holds no sentences: restore the official file")
    return rows
