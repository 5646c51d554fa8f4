"""Many videos with one opened bundle: the files, and the outputs of each.

`FileProcessor` does one file. A single process calls it in turn, `--workers` calls it in several
(`streaming/workers.py`), and Ray Data maps it over the files on several machines (`examples/ray_batch.py`).
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from rvos_edge.atomic import new_directory
from rvos_edge.errors import UserError
from rvos_edge.opening import open_segmenter
from rvos_edge.outputs import check_name
from rvos_edge.queries import read_queries
from rvos_edge.result import Overlap
from rvos_edge.streaming.loop import run_stream
from rvos_edge.streaming.sinks import JsonSink, MaskSink, RleSink, Sink, VideoSink, open_sinks
from rvos_edge.streaming.sources import (
    ASSUMED_FPS,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    glob_files,
    natural_order,
    open_source,
)


class BatchRow(TypedDict):
    """One file of a batch, in words and numbers that every process and machine can pass on.

    Keys: source (path), name (stem, the name of its outputs), frames and seconds (0 before), error (empty: fine) and
    bad_input (true if the file is at fault, not the program).
    """

    source: str
    name: str
    frames: int
    seconds: float
    error: str
    bad_input: bool


@dataclass(frozen=True)
class BatchJob:
    """The work to do on every file; can be pickled.

    Attributes:
        output: Folder of overlay videos, NAME.mp4.
        masks: Folder of folders of masks, NAME/00000.png.
        json: Folder of JSON lines, NAME.jsonl.
        rle: Folder of COCO run lengths, NAME.rle.jsonl.
        options: Keyword arguments of ``rvos_edge.open``, such as ``device`` or ``threads``.
    """

    queries: tuple[str, ...]
    bundle: Path | None = None
    output: Path | None = None
    masks: Path | None = None
    json: Path | None = None
    rle: Path | None = None
    overlap: Overlap = Overlap.KEEP
    frames: int | None = None
    opacity: float = 0.5
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that are written to."""
        return tuple(folder for folder in (self.output, self.masks, self.json, self.rle) if folder is not None)

    def outputs(self, name: str) -> tuple[Path, ...]:
        """The outputs of the file of that name."""
        paths = (
            self.output and self.output / f"{name}.mp4",
            self.masks and self.masks / name,
            self.json and self.json / f"{name}.jsonl",
            self.rle and self.rle / f"{name}.rle.jsonl",
        )
        return tuple(path for path in paths if path is not None)


class FileProcessor:
    """Segments whole files with one opened bundle: call it with a row, it gives the row back filled in.

    An error with a file is told in its row and leaves none of its outputs behind.

    Raises:
        UserError: The bundle, the backend or the queries cannot be used.
    """

    def __init__(self, job: BatchJob) -> None:
        self._job = job
        self._segmenter = open_segmenter(job.bundle, **job.options)
        self._segmenter.set_queries(read_queries(job.queries))
        self.backend_name = self._segmenter.backend_name

    def __call__(self, row: BatchRow) -> BatchRow:
        try:
            frames, seconds = self._process(row["source"], row["name"])
        except UserError as error:
            return {**row, "error": str(error), "bad_input": True}
        except Exception as error:
            # One file must not cost the others; that it is a bug shows in the words and in the exit code.
            return {**row, "error": f"{type(error).__name__}: {error}", "bad_input": False}
        return {**row, "frames": frames, "seconds": seconds, "error": "", "bad_input": False}

    def _process(self, path: str, name: str) -> tuple[int, float]:
        job = self._job
        with ExitStack() as stack:
            source = stack.enter_context(open_source(path))
            makers: list[Callable[[], Sink]] = []
            if job.output is not None:
                video = job.output / f"{name}.mp4"
                makers.append(lambda: VideoSink(video, source.fps or ASSUMED_FPS, sound=source.sound))
            if job.masks is not None:
                # The folder gets its name when it is whole: no masks of an interrupted or an older run among these.
                folder = stack.enter_context(new_directory(job.masks / name))
                makers.append(lambda: MaskSink(folder, overlap=job.overlap, locked=True))
            if job.json is not None:
                lines = job.json / f"{name}.jsonl"
                makers.append(lambda: JsonSink(lines))
            if job.rle is not None:
                lengths = job.rle / f"{name}.rle.jsonl"
                makers.append(lambda: RleSink(lengths))
            self._segmenter.reset()
            summary = run_stream(
                self._segmenter,
                source,
                stack.enter_context(open_sinks(makers)),
                frames=job.frames,
                opacity=job.opacity,
                overlap=job.overlap,
                keep_partial=False,
                pipelined=True,
            )
        return summary.frames, summary.seconds


def find_files(spec: str) -> list[Path] | None:
    """The videos that a source names, if it names several things to be processed one by one.

    A glob of videos, or of folders of images, is a batch, and so is a folder of videos; anything else, such as one
    video or a glob of images, is one stream.

    Returns:
        The files in natural order, None where the source is one stream.

    Raises:
        UserError: A glob matches images and videos.
    """
    path = Path(spec)
    if path.is_dir():
        inside = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
        found = [] if any(map(_is_image, inside)) else [entry for entry in inside if _is_video(entry)]
        return _sorted(found) or None
    if path.exists() or not glob.has_magic(spec):
        return None
    matches = glob_files(spec)
    images = [match for match in matches if _is_image(match)]
    videos = [match for match in matches if _is_video(match)]
    if images and videos:
        raise UserError(
            f"{spec!r} matches images and videos ({images[0].name}, {videos[0].name}); narrow it to one kind"
        )
    if images:
        return None
    folders = [match for match in matches if match.is_dir() and any(map(_is_image, match.iterdir()))]
    return _sorted([*videos, *folders]) or None


def make_rows(files: Sequence[Path]) -> list[BatchRow]:
    """A row per file, named by its stem; two files of one stem, whose outputs would have one name, are refused."""
    rows: dict[str, BatchRow] = {}
    for path in files:
        check_name(path)
        name = path.name if path.is_dir() else path.stem
        other = rows.setdefault(
            name, {"source": str(path), "name": name, "frames": 0, "seconds": 0.0, "error": "", "bad_input": False}
        )
        if other["source"] != str(path):
            raise UserError(
                f"{other['source']} and {path} would write the same outputs, {name}; process them into separate folders"
            )
    return list(rows.values())


def check_folders(job: BatchJob) -> None:
    """Refuse outputs that cannot hold one thing per file: none, a file or the name of one, or "-"."""
    if not job.folders:
        raise UserError("nothing would be written; for many files give a folder to --output, --masks, --json or --rle")
    for option, folder, suffix in (
        ("--output", job.output, ".mp4"),
        ("--json", job.json, ".jsonl"),
        ("--rle", job.rle, ".jsonl"),
    ):
        if folder is not None and (folder.suffix.lower() in (suffix, ".json") or str(folder) == "-"):
            raise UserError(f"{option} {folder}: many files need a folder here, one {suffix} is written for each")
    for folder in job.folders:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; many files need a folder, in which each has its own output")


def _sorted(paths: list[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: natural_order(str(path)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()
