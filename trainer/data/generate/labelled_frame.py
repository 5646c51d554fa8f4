"""A frame whose things are known, before sentences are made: what the data sets share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.templates import Thing, absent, contradictions, describe
from rvos_edge.trainer.data.sample import Sample
from rvos_edge.trainer.data.transforms import Augmentation, photometric

_PRESENT, _ABSENT = 8, 6
_NEAR = 0.25
"""Share of absent names that are of a kind with something present."""
_CLEARLY = 2.0  # pixels per frame
MOVERS = ("the moving object", "the object that is moving", "something moving", "the thing that moves", "what moves")


@dataclass(frozen=True, kw_only=True)
class LabelledFrame:
    """A frame in its final geometry.

    Attributes:
        image: RGB uint8 [H,W,3].
        flow: float32 [hf,wf,2], pixels of the image.
        ignore: bool [H,W], pixels of things too small, too cut or too crowded to speak of.
        uncertain: categories of the ignored things.
        categories: everything that the picture may hold.
        near: categories surely absent, of the same kind as present ones.
        far: other categories surely absent.
        others: sentences of other pictures that may be tried as absent ones.
        narrower: names that instances of a category have elsewhere; they are absent where the category is.
        camera: as in ``Sample``.
    """

    image: NDArray[np.uint8]
    flow: NDArray[np.float32]
    things: list[Thing]
    ignore: NDArray[np.bool_] | None = None
    uncertain: frozenset[str] = field(default_factory=frozenset)
    categories: frozenset[str] = field(default_factory=frozenset)
    near: tuple[str, ...] = ()
    far: tuple[str, ...] = ()
    others: Sequence[str] = ()
    narrower: Mapping[str, Sequence[str]] = field(default_factory=dict)
    camera: NDArray[np.float32] | None = None


def finish(scene: LabelledFrame, rng: np.random.Generator, augmentation: Augmentation) -> Sample:
    """Make the pairs of a scene, present and absent ones, and vary its colours."""
    pairs = describe(scene.things, uncertain=scene.uncertain, rng=rng, tails=True)
    pairs = [pairs[i] for i in rng.permutation(len(pairs))[:_PRESENT]]
    empty = np.zeros(scene.image.shape[:2], np.bool_)
    mover = _only_mover(scene)
    if mover is not None:
        # Whatever it looks like: here the flow alone can tell.
        pairs.insert(int(rng.integers(len(pairs) + 1)), (MOVERS[int(rng.integers(len(MOVERS)))], mover.mask))
    pairs += [(sentence, empty) for sentence in absent_sentences(scene, rng, _ABSENT)]
    return Sample(
        image=np.ascontiguousarray(photometric(scene.image, rng, augmentation)),
        flow=np.ascontiguousarray(scene.flow, np.float32),
        masks=np.stack([mask for _, mask in pairs]) if pairs else np.zeros((0, *empty.shape), np.bool_),
        expressions=tuple(sentence for sentence, _ in pairs),
        ignore=scene.ignore,
        camera=scene.camera,
    )


def _only_mover(scene: LabelledFrame) -> Thing | None:
    """The only thing whose flow clearly differs from that of everything else; None without one."""
    height, width = scene.flow.shape[:2]
    unknown = np.zeros((height, width), np.bool_) if scene.ignore is None else _shrunk(scene.ignore, width, height) > 0
    shares = [_shrunk(thing.mask, width, height) for thing in scene.things]
    for index, thing in enumerate(scene.things):
        outside = (shares[index] == 0) & ~unknown
        if np.count_nonzero(outside) < 0.2 * outside.size:
            continue
        own = np.linalg.norm(scene.flow - np.median(scene.flow[outside], axis=0), axis=-1)
        speeds = [float(np.median(own[share > 0.5])) if (share > 0.5).any() else 0.0 for share in shares]
        rivals = [speed for other, speed in enumerate(speeds) if other != index]
        # Zooms and parallax move the far corners too: hardly anything there may be half as fast as the thing is.
        if speeds[index] > max(_CLEARLY, 2 * float(np.quantile(own[outside], 0.98)), 4 * max(rivals, default=0.0)):
            return thing
    return None


def _shrunk(mask: NDArray[np.bool_], width: int, height: int) -> NDArray[np.float32]:
    """bool [H,W] -> the share of the mask in each cell, [height,width]."""
    small = cv2.resize(mask.view(np.uint8) * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255)


def absent_sentences(scene: LabelledFrame, rng: np.random.Generator, count: int) -> list[str]:
    """Sentences about nothing in the scene: wrong attributes now and then, other pictures' sentences, other names.

    Their nouns are those that true sentences use, mostly of other kinds of things than the scene holds; what is absent
    is known from the annotations. There are fewer where too little is known.
    """
    wrong = contradictions(scene.things, uncertain=scene.uncertain, rng=rng)
    out = [wrong[int(rng.integers(len(wrong)))]] if wrong and rng.random() < 0.5 else []
    present = [s for thing in scene.things for s in thing.sentences]
    present += [f"a {category}" for category in scene.categories]
    known = frozenset(scene.near) | frozenset(scene.far)
    if len(scene.others):
        for index in rng.integers(len(scene.others), size=4):
            sentence = scene.others[int(index)]
            sure = not known or known >= vocabulary.concepts(sentence)
            if sure and vocabulary.surely_absent(sentence, scene.categories, present):
                out.append(sentence)
    for _ in range(count):
        pool = scene.near if rng.random() < _NEAR else scene.far
        pool = pool or scene.far or scene.near
        if not pool:
            break
        out.append(absent(pool, rng, narrower=scene.narrower))
    return [out[i] for i in rng.permutation(len(out))[:count]]


def to_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """BGR to RGB."""
    return cast("NDArray[np.uint8]", cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def camera_flow(rng: np.random.Generator, size: tuple[int, int], flow_size: tuple[int, int]) -> NDArray[np.float32]:
    """Flow of a moving camera in front of a still picture, float32 [h,w,2] in pixels of an image of ``size``.

    A pan, a zoom and a roll, with a smooth unevenness as from depth; a quarter of the time the camera stands still.
    """
    if rng.random() < 0.25:
        return np.zeros((*flow_size, 2), np.float32)
    field = _affine(rng, size, flow_size, pan=float(rng.choice((0.5, 2.0, 4.0))), turn=0.012)
    bumps = rng.normal(0, 1, (3, 5, 1)).astype(np.float32)
    depth = cv2.resize(bumps, flow_size[::-1], interpolation=cv2.INTER_CUBIC)[..., None]
    return cast("NDArray[np.float32]", field * (1 + 0.15 * depth))


def move(
    flow: NDArray[np.float32], mask: NDArray[np.bool_], motion: tuple[float, float], rng: np.random.Generator
) -> None:
    """Give the pixels of a mask [H,W] their own motion (dx, dy pixels per frame, beyond the camera's), in place.

    The flow runs back in time, so a thing that moves by +dx has a flow of -dx.
    """
    height, width = flow.shape[:2]
    weight = _shrunk(mask, width, height)[..., None]
    own = -np.asarray(motion, np.float32)
    if any(motion):
        own = own * (1 + _affine(rng, mask.shape, (height, width), pan=0.0, turn=0.0004))
    flow += weight * own


def blur_flow(flow: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Soften the edges of an exact field as an estimator would."""
    return cast("NDArray[np.float32]", cv2.GaussianBlur(flow, (0, 0), float(rng.uniform(0.6, 2.2))))


def _affine(
    rng: np.random.Generator, size: tuple[int, ...], flow_size: tuple[int, int], *, pan: float, turn: float
) -> NDArray[np.float32]:
    h, w = flow_size
    y, x = np.meshgrid(
        np.linspace(-0.5, 0.5, h, dtype=np.float32) * size[0],
        np.linspace(-0.5, 0.5, w, dtype=np.float32) * size[1],
        indexing="ij",
    )
    zoom, roll = rng.normal(0, turn, 2)
    dx, dy = rng.normal(0, 1, 2) * (pan, pan * 0.5)
    return np.stack([dx + zoom * x - roll * y, dy + zoom * y + roll * x], axis=-1).astype(np.float32)
