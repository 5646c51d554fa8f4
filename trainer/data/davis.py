"""DAVIS videos with referring expressions in the JSON form of Refer-YouTube-VOS."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.trainer.data import lexicon
from rvos_edge.trainer.data.expressions import Thing, flip_words, place_holds
from rvos_edge.trainer.data.flow_store import FlowStore
from rvos_edge.trainer.data.sample import Sample
from rvos_edge.trainer.data.scene import Scene, finish, read_image, to_rgb
from rvos_edge.trainer.data.transforms import Augmentation, View, random_view

VALIDATION_VIDEOS = ("car-turn", "dog-agility", "horsejump-low", "mallard-water", "scooter-gray", "hike")

# What the DAVIS-2016 training videos show beside their foreground, so that nobody calls it absent.
_SCENERY: dict[str, str] = {
    "bear": "",
    "bmx-bumps": "sports ball,bench,car",
    "boat": "car,person",
    "breakdance-flare": "vase,bench",
    "bus": "person,car,bench,traffic light,stop sign,parking meter,bicycle",
    "car-turn": "person",
    "dance-jump": "person,sports ball,handbag,bench",
    "dog-agility": "person,umbrella,car",
    "drift-turn": "person,truck,bus,handbag,umbrella,bench,motorcycle",
    "elephant": "",
    "flamingo": "",
    "hike": "backpack,handbag",
    "hockey": "person,sports ball,baseball bat,bench,bicycle",
    "horsejump-low": "bench,car,motorcycle",
    "kite-walk": "kite,surfboard,boat,backpack",
    "lucia": "person,backpack,handbag,bench,sports ball",
    "mallard-fly": "",
    "mallard-water": "",
    "motocross-bumps": "person,motorcycle,car",
    "motorbike": "vase,car,backpack,suitcase",
    "paragliding": "car,bus,truck",
    "rollerblade": "skateboard",
    "scooter-gray": "person,motorcycle,bicycle,car,traffic light,stop sign,parking meter,clock,suitcase",
    "soccerball": "",
    "stroller": "person,vase,bowl,umbrella,teddy bear,handbag,suitcase,clock,tv,bird,car,bottle,cake,bed,kite",
    "surf": "boat,surfboard,kite,person",
    "swing": "person,bench",
    "tennis": "person,sports ball,tennis racket,bench",
    "train": "person,car,truck,bus,bench,traffic light",
}


@dataclass(frozen=True)
class Referred:
    """One referred object of a video: its id in the annotation (None = every foreground pixel), its sentences."""

    object_id: int | None
    sentences: tuple[str, ...]


class DavisDataset:
    """Random frames of DAVIS videos (folders JPEGImages/480p and Annotations/480p) with their expressions.

    Args:
        root: the data set's folder.
        size: (H,W) of the samples' images.
        flow_size: (h,w) of the samples' flow.
        expressions: the expressions' JSON; ROOT/meta_expressions.json when None.
        videos: the videos to use, or "train"/"val" (the development split), or None for all with expressions.
        flow: stored flow of these videos, zeros when None.
        binary: the foreground of DAVIS-16 is one object; otherwise each ``obj_id`` is a value of the mask.
        distractors: further sentences that may be tried as absent ones; those of the other videos are always tried.
        augmentation: how samples are varied.

    Raises:
        UserError: a folder, file or mask is missing or does not fit; the message says which.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        size: tuple[int, int],
        flow_size: tuple[int, int],
        expressions: str | Path | None = None,
        videos: Sequence[str] | str | None = "train",
        flow: FlowStore | None = None,
        binary: bool = True,
        distractors: Sequence[str] = (),
        augmentation: Augmentation | None = None,
    ) -> None:
        self.root = Path(root)
        self.size, self.flow_size, self.flow = size, flow_size, flow
        self.augmentation = augmentation or Augmentation()
        if not self.root.is_dir():
            raise UserError(f"the DAVIS folder {self.root} does not exist: give the folder that holds JPEGImages")
        self.objects = _read_expressions(
            Path(expressions) if expressions else self.root / "meta_expressions.json", binary
        )
        self.videos = _select(tuple(self.objects), videos)
        self._frames = {video: self._list(video) for video in self.videos}
        if flow is not None:
            for video, names in self._frames.items():
                flow.check(video, [self.image_path(video, name) for name in names])
        self._others = {
            video: [s for other in self.videos if other != video for s in self.sentences(other)] + list(distractors)
            for video in self.videos
        }

    def sentences(self, video: str) -> list[str]:
        """All sentences of a video."""
        return [sentence for referred in self.objects[video] for sentence in referred.sentences]

    def frames(self, video: str) -> list[str]:
        """The names of a video's frames in order, without suffix."""
        return list(self._frames[video])

    def image_path(self, video: str, name: str) -> Path:
        """The image file of a frame."""
        return self.root / "JPEGImages" / "480p" / video / f"{name}.jpg"

    def categories(self, video: str) -> frozenset[str]:
        """Everything a video may hold: its scenery where known, and whatever its sentences may speak of."""
        scenery = frozenset(filter(None, _SCENERY.get(video, "").split(",")))
        return scenery.union(*(lexicon.concepts(sentence) for sentence in self.sentences(video)))

    def load(self, video: str, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """One frame at its own size: the image, BGR uint8 [H,W,3], and the annotation's values, uint8 [H,W]."""
        name = self._frames[video][index]
        image = read_image(self.image_path(video, name))
        path = self.root / "Annotations" / "480p" / video / f"{name}.png"
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if mask is None:
            raise UserError(f"cannot read the mask {path}: it is missing or damaged")
        mask = mask[..., 0] if mask.ndim == 3 else mask
        if mask.shape != image.shape[:2]:
            raise UserError(f"the mask {path} is {mask.shape[::-1]}, its image {image.shape[1::-1]}: sizes must agree")
        return image, cast("NDArray[np.uint8]", mask)

    def scene(self, rng: np.random.Generator) -> Scene:
        """A random frame in a random view, with one or two sentences per object."""
        video = self.videos[int(rng.integers(len(self.videos)))]
        index = int(rng.integers(len(self._frames[video])))
        image, values = self.load(video, index)
        sources = [_mask(values, referred.object_id) for referred in self.objects[video]]
        boxes = [_box(mask) for mask in sources if mask.any()]
        view = random_view(rng, values.shape, self.size, self.augmentation, np.stack(boxes) if boxes else None)
        things = []
        for referred, source in zip(self.objects[video], sources, strict=True):
            mask = view.mask(source)
            said = [flip_words(s) if view.flip else s for s in referred.sentences]
            said = [s for s in said if place_holds(s, mask)]
            chosen = rng.permutation(len(said))[: int(rng.integers(1, 3))]
            things.append(Thing(mask=mask, sentences=tuple(said[i] for i in chosen)))
        categories = self.categories(video)
        return Scene(
            image=to_rgb(view.image(image, fill=int(rng.integers(0, 128)))),
            flow=self._flow(video, index, view),
            things=things,
            categories=categories,
            far=tuple(lexicon.absent_categories(categories)) if video in _SCENERY else (),
            near=tuple(sorted((lexicon.ANIMALS | lexicon.VEHICLES | {"person"}) - lexicon.confusable(categories)))
            if video in _SCENERY
            else (),
            others=self._others[video],
        )

    def draw(self, rng: np.random.Generator) -> Sample:
        """A random frame with its pairs and absent sentences."""
        return finish(self.scene(rng), rng, self.augmentation)

    def _flow(self, video: str, index: int, view: View) -> NDArray[np.float32]:
        if self.flow is None or index == 0:
            return np.zeros((*self.flow_size, 2), np.float32)
        return view.flow(self.flow.read(video, index), self.flow_size, unit=self.flow.image_size(video))

    def _list(self, video: str) -> list[str]:
        folder = self.root / "JPEGImages" / "480p" / video
        names = sorted(path.stem for path in folder.glob("*.jpg"))
        if not names:
            raise UserError(f"no images in {folder}: the expressions name the video '{video}', add its frames")
        masks = {path.stem for path in (self.root / "Annotations" / "480p" / video).glob("*.png")}
        missing = sorted(set(names) - masks)
        if missing:
            raise UserError(f"no mask Annotations/480p/{video}/{missing[0]}.png in {self.root}: add the annotations")
        return names


def _select(known: tuple[str, ...], videos: Sequence[str] | str | None) -> tuple[str, ...]:
    if videos is None:
        return known
    if isinstance(videos, str):
        if videos not in ("train", "val"):
            raise UserError(f"'{videos}' is not a split: say train, val or a list of videos")
        chosen = tuple(v for v in known if (v in VALIDATION_VIDEOS) == (videos == "val"))
        if not chosen:
            raise UserError(f"no video of the split '{videos}' has expressions: list the videos to use instead")
        return chosen
    unknown = [video for video in videos if video not in known]
    if unknown or not videos:
        raise UserError(f"no expressions for {unknown or 'an empty list of videos'}: check the names of the videos")
    return tuple(videos)


def _read_expressions(path: Path, binary: bool) -> dict[str, tuple[Referred, ...]]:
    try:
        videos = json.loads(path.read_text(encoding="utf-8"))["videos"]
        out = {}
        for video, entry in videos.items():
            said: dict[int | None, list[str]] = {}
            for expression in entry["expressions"].values():
                key = None if binary else int(expression["obj_id"])
                said.setdefault(key, []).append(" ".join(str(expression["exp"]).lower().split()))
            out[str(video)] = tuple(Referred(key, tuple(sentences)) for key, sentences in said.items())
    except FileNotFoundError as error:
        raise UserError(f"the expressions {path} do not exist: give the file with the option 'expressions'") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not an expressions file: it needs videos/NAME/expressions/ID/exp,obj_id") from error
    return out


def _mask(values: NDArray[np.uint8], object_id: int | None) -> NDArray[np.bool_]:
    return values > 0 if object_id is None else values == object_id


def _box(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    return np.array([x, y, x + w, y + h], np.float32)
