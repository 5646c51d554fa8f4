"""Training samples from a referring video data set: annotated frames or pairs, augmented, with their expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.result import mask_boxes
from rvos_edge.trainer.data.flow_cache import FlowCache, LiveFlow
from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.labelled_frame import LabelledFrame, blur_flow, camera_flow, finish, to_rgb
from rvos_edge.trainer.data.generate.templates import Thing, flip_words, place_holds
from rvos_edge.trainer.data.readers.base import AnnotatedClips, image_paths
from rvos_edge.trainer.data.sample import Sample
from rvos_edge.trainer.data.transforms import Augmentation, CropView, photometric, random_view


@dataclass(frozen=True)
class Referred:
    """A referred object of a video: its id in the annotation (None: the whole foreground) and its expressions."""

    object_id: int | None
    sentences: tuple[str, ...]


class ClipsDataset:
    """Annotated frames of referring clips, at random or by number; `Countable` and `Paired`.

    Args:
        flow: Flow of the videos; zeros by default.
        scenery: Categories visible beside the referred objects, by video. Any other category counts as absent from a
            video listed here; from other videos only rare things do.
        still: The clips are single images: camera motion is synthesised.

    Raises:
        UserError: A video has no annotated frame, or the stored flow belongs to other frames.
    """

    def __init__(
        self,
        clips: AnnotatedClips,
        *,
        size: tuple[int, int],
        flow_size: tuple[int, int],
        flow: FlowCache | LiveFlow | None = None,
        scenery: Mapping[str, frozenset[str]] | None = None,
        still: bool = False,
        distractors: Sequence[str] = (),
        augmentation: Augmentation | None = None,
    ) -> None:
        self.clips, self.root, self.videos = clips, clips.root, clips.videos
        self.size, self.flow_size, self.flow, self.still = size, flow_size, flow, still
        self.augmentation = augmentation or Augmentation()
        self.objects = {video: _objects(clips, video) for video in self.videos}
        self._scenery = scenery or {}
        self._annotated = {video: clips.annotated(video) for video in self.videos}
        for video, indices in self._annotated.items():
            if not indices:
                raise UserError(
                    f"the video '{video}' in {self.root} has no annotated frame: add its masks or leave the video out"
                )
            if flow is not None:
                flow.check(video, image_paths(clips, video))
        sentences = [self.sentences(video) for video in self.videos]
        ends = np.cumsum([len(own) for own in sentences]).tolist()
        pool = [sentence for own in sentences for sentence in own] + list(distractors)
        self._others = {
            video: _AllBut(pool, end - len(own), end)
            for video, own, end in zip(self.videos, sentences, ends, strict=True)
        }
        self._places = [(video, index) for video, indices in self._annotated.items() for index in indices]
        counts = zip(self._annotated.values(), sentences, strict=True)
        self._pair_ends = np.cumsum([len(indices) * len(own) for indices, own in counts])

    def __len__(self) -> int:
        """Number of annotated frames."""
        return len(self._places)

    @property
    def pairs(self) -> int:
        """Number of pairs of an annotated frame and an expression of its video, whether the frame shows it or not."""
        return int(self._pair_ends[-1])

    def sentences(self, video: str) -> list[str]:
        """All expressions of a video."""
        return [sentence for referred in self.objects[video] for sentence in referred.sentences]

    def frames(self, video: str) -> list[str]:
        """Names of a video's frames, in order."""
        return self.clips.frames(video)

    def categories(self, video: str) -> frozenset[str]:
        """Categories that a video may show: its scenery where known, and those that its expressions may name."""
        scenery = self._scenery.get(video, frozenset())
        return scenery.union(*(vocabulary.concepts(sentence) for sentence in self.sentences(video)))

    def random_index(self, video: str, rng: np.random.Generator) -> int:
        """Index of a random annotated frame."""
        indices = self._annotated[video]
        return indices[int(rng.integers(len(indices)))]

    def load(self, video: str, index: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """An annotated frame at its own size, BGR uint8 [H,W,3], and the masks of ``objects[video]``, bool [N,H,W]."""
        image = self.clips.image(video, index)
        masks = self.clips.masks(video, index)
        if masks is None:
            raise UserError(f"the frame {self.clips.image_path(video, index)} has no annotation")
        ids = [query.object_id for query in self.clips.queries(video)]
        return image, masks[[ids.index(referred.object_id) for referred in self.objects[video]]]

    def scene(self, rng: np.random.Generator, place: tuple[str, int] | None = None) -> LabelledFrame:
        """A frame in a random view, with one or two expressions per object; ``place`` is its video and index."""
        if place is None:
            video = self.videos[int(rng.integers(len(self.videos)))]
            place = video, self.random_index(video, rng)
        video, index = place
        image, sources = self.load(video, index)
        view = self._view(image, sources, rng)
        things = []
        for referred, source in zip(self.objects[video], sources, strict=True):
            mask = view.mask(source)
            said = [flip_words(s) if view.flip else s for s in referred.sentences]
            said = [s for s in said if place_holds(s, mask)]
            chosen = rng.permutation(len(said))[: int(rng.integers(1, 3))]
            things.append(Thing(mask=mask, sentences=tuple(said[i] for i in chosen)))
        categories = self.categories(video)
        known = video in self._scenery
        flow, camera = self._flow(video, index, view, rng)
        near = (vocabulary.ANIMALS | vocabulary.VEHICLES | {"person"}) - vocabulary.confusable(categories)
        return LabelledFrame(
            image=to_rgb(view.image(image, fill=int(rng.integers(0, 128)))),
            flow=flow,
            camera=camera,
            things=things,
            categories=categories,
            far=tuple(vocabulary.absent_categories(categories)) if known else (),
            near=tuple(sorted(near)) if known else (),
            others=self._others[video],
        )

    def draw(self, rng: np.random.Generator) -> Sample:
        """A sample of a random frame, with present and absent expressions."""
        return finish(self.scene(rng), rng, self.augmentation)

    def draw_at(self, position: int, rng: np.random.Generator) -> Sample:
        """A sample of frame number ``position``, counted from 0 through all videos."""
        return finish(self.scene(rng, self._places[position]), rng, self.augmentation)

    def draw_pair(self, position: int, rng: np.random.Generator) -> Sample:
        """A sample of pair number ``position``, counted from 0 through videos, frames and expressions.

        The expression is as written, but for left and right in a mirrored view; the mask is empty where the view does
        not show the object.
        """
        number = int(np.searchsorted(self._pair_ends, position, side="right"))
        video = self.videos[number]
        said = [(row, text) for row, referred in enumerate(self.objects[video]) for text in referred.sentences]
        place, which = divmod(position - int(self._pair_ends[number]), len(said))  # from the end: place is below zero
        index, (row, text) = self._annotated[video][place], said[which]
        image, sources = self.load(video, index)
        view = self._view(image, sources[row : row + 1], rng)
        flow, camera = self._flow(video, index, view, rng)
        shown = to_rgb(view.image(image, fill=int(rng.integers(0, 128))))
        return Sample(
            image=np.ascontiguousarray(photometric(shown, rng, self.augmentation)),
            flow=np.ascontiguousarray(flow, np.float32),
            masks=view.mask(sources[row])[None],
            expressions=(flip_words(text) if view.flip else text,),
            camera=camera,
        )

    def _view(self, image: NDArray[np.uint8], masks: NDArray[np.bool_], rng: np.random.Generator) -> CropView:
        size = (image.shape[0], image.shape[1])
        boxes = mask_boxes(masks[masks.any(axis=(1, 2))]).astype(np.float32)
        return random_view(rng, size, self.size, self.augmentation, boxes)

    def _flow(
        self, video: str, index: int, view: CropView, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Flow of a view, and the statistics of the whole frame's; None where the view is a whole frame."""
        if self.still:
            return blur_flow(camera_flow(rng, self.size, self.flow_size), rng), None
        if self.flow is None or index == 0:
            return np.zeros((*self.flow_size, 2), np.float32), None
        field, unit = self.flow.read(video, index), self.flow.key.size
        camera = view.camera(field, unit=unit)
        # Bars move with the camera: they stay dark in the motion image, as the runtime's do.
        return view.flow(field, self.flow_size, unit=unit, beyond=camera[:2]), camera


class _AllBut(Sequence[str]):
    """A view of a list without items ``start`` to ``end``: one list serves thousands of videos."""

    def __init__(self, items: list[str], start: int, end: int) -> None:
        self._items, self._start, self._gap = items, start, end - start

    def __len__(self) -> int:
        return len(self._items) - self._gap

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._items[index if index < self._start else index + self._gap]


def _objects(clips: AnnotatedClips, video: str) -> tuple[Referred, ...]:
    said: dict[int | None, list[str]] = {}
    for query in clips.queries(video):
        said.setdefault(query.object_id, []).append(query.expression)
    return tuple(Referred(number, tuple(sentences)) for number, sentences in said.items())
