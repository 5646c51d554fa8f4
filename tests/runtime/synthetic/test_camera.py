"""The synthetic camera: what it shows, what it knows and what it says must agree."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rvos_edge.synthetic.camera import KINDS, SceneObject, SyntheticCamera

SIZE = (120, 200)
# Written out here on purpose: the camera's own tables must not vouch for themselves.
COLOURS = {
    "red": "red",
    "orange": "orange",
    "yellow": "yellow",
    "green": "green",
    "cyan": "cyan",
    "blue": "blue",
    "purple": "purple",
    "violet": "purple",
    "pink": "pink",
    "brown": "brown",
    "white": "white",
    "gray": "gray",
    "grey": "gray",
    "black": "black",
}
SHAPES = {
    "ball": {"circle"},
    "circle": {"circle"},
    "round": {"circle"},
    "square": {"square"},
    "box": {"square", "rectangle"},
    "rectangle": {"rectangle"},
    "triangle": {"triangle"},
    "star": {"star"},
    "ring": {"ring"},
    "hoop": {"ring"},
    "pentagon": {"pentagon"},
    "hexagon": {"hexagon"},
    "heart": {"heart"},
    "cross": {"cross"},
    "plus": {"cross"},
    "diamond": {"diamond"},
    "rhombus": {"diamond"},
    "ellipse": {"ellipse"},
    "oval": {"ellipse"},
    "crescent": {"crescent"},
    "moon": {"crescent"},
}
SIZES = {"large": "large", "big": "large", "small": "small", "little": "small"}
TEXTURES = {"striped": "striped", "dotted": "dotted", "spotted": "dotted", "checkered": "checkered"}


def fits(thing: SceneObject, expression: str) -> bool:
    """Compare the appearance that an expression names with that of the object."""
    return all(
        (word not in COLOURS or COLOURS[word] == thing.colour)
        and (word not in SHAPES or thing.shape in SHAPES[word])
        and (word not in SIZES or SIZES[word] == thing.size_name)
        and (word not in TEXTURES or TEXTURES[word] == thing.texture)
        for word in expression.split()
    )


def source_of(flow: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    y, x = np.mgrid[: flow.shape[1], : flow.shape[2]].astype(np.float32)
    return x + flow[0], y + flow[1]


def eroded(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    return np.asarray(cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=pixels)) > 0


def test_the_seed_determines_every_frame() -> None:
    frames = list(SyntheticCamera(seed=5, size=SIZE, frames=6))
    assert [frame.index for frame in frames] == list(range(6))
    other = SyntheticCamera(seed=5, size=SIZE)
    for index in (5, 0, 3):
        alone = other.render(index)
        assert np.array_equal(alone.image, frames[index].image)
        assert np.array_equal(alone.masks, frames[index].masks)
        assert np.array_equal(alone.flow, frames[index].flow)
    assert other.expressions(3) == SyntheticCamera(seed=5, size=SIZE).expressions(3)
    assert not np.array_equal(SyntheticCamera(seed=6, size=SIZE).render(0).image, frames[0].image)


def test_frames_have_the_promised_types_and_disjoint_masks() -> None:
    for seed, size in ((0, SIZE), (1, (64, 96)), (2, (200, 90)), (3, (33, 47))):
        camera = SyntheticCamera(seed=seed, size=size)
        frame = camera.render(9)
        assert frame.image.dtype == np.uint8
        assert frame.image.shape == (*size, 3)
        assert frame.masks.dtype == np.bool_
        assert frame.masks.shape == (len(camera.objects), *size)
        assert frame.flow.dtype == np.float32
        assert frame.flow.shape == (2, *size)
        assert frame.masks.sum(axis=0).max() <= 1
        assert not camera.render(0).flow.any()


def test_size_changes_the_pixels_not_the_scene() -> None:
    small, large = SyntheticCamera(seed=8, size=(72, 128)), SyntheticCamera(seed=8, size=(288, 512))
    assert small.objects == large.objects
    shares = [camera.render(4).masks.mean(axis=(1, 2)) for camera in (small, large)]
    np.testing.assert_allclose(shares[0], shares[1], atol=0.004)


def test_number_of_objects() -> None:
    assert {len(SyntheticCamera(seed=seed, size=(40, 40)).objects) for seed in range(30)} == {2, 3, 4, 5}
    assert len(SyntheticCamera(objects=7, size=(40, 40)).objects) == 7


@pytest.mark.parametrize("seed", range(12))
def test_flow_takes_every_pixel_to_where_it_was(seed: int) -> None:
    camera = SyntheticCamera(seed=seed, size=SIZE)
    before, now = camera.render(20 + seed), camera.render(21 + seed)
    x, y = source_of(now.flow)
    came_from = cv2.remap(before.image, x, y, cv2.INTER_LINEAR).astype(np.float32)
    error = np.abs(came_from - now.image).mean(axis=2)
    inside = (x >= 0) & (y >= 0) & (x <= SIZE[1] - 1) & (y <= SIZE[0] - 1)
    top = len(camera.objects) - 1  # nothing hides it
    for number, (was, mask) in enumerate(zip(before.masks, now.masks, strict=True)):
        was_there = cv2.remap(was.astype(np.float32), x, y, cv2.INTER_LINEAR)
        if number == top and mask.any():
            assert (mask & (was_there > 0.5)).sum() > 0.95 * (mask & inside).sum()
            assert (was_there[eroded(mask, 1) & inside] > 0.5).all()
        core = eroded(mask, 2) & inside & (was_there > 0.999)
        if core.sum() > 30:
            assert error[core].mean() < 9, f"object {number}"
    # The background, away from objects and their shadows.
    bare = eroded(np.asarray(~np.any(now.masks | before.masks, axis=0)), 20) & inside
    if bare.sum() > 200:
        assert error[bare].mean() < 7


def test_flow_matters_where_the_camera_moves() -> None:
    """The photometric check above would be idle if zero flow passed it."""
    camera = next(
        camera
        for seed in range(40)
        if np.abs((camera := SyntheticCamera(seed=seed, size=SIZE)).render(30).flow).mean() > 0.8
    )
    before, now = camera.render(29).image.astype(np.float32), camera.render(30)
    x, y = source_of(now.flow)
    moved = np.abs(cv2.remap(before, x, y, cv2.INTER_LINEAR) - now.image).mean()
    assert moved < 0.8 * np.abs(before - now.image).mean()


def test_looks_name_exactly_one_object() -> None:
    for seed in range(25):
        camera = SyntheticCamera(seed=seed, size=SIZE)
        said = camera.expressions(15, kinds=("colour", "shape", "size", "texture"))
        ranked = ("largest", "biggest", "larger", "bigger", "smallest", "smaller")
        for number, expressions in enumerate(said):
            for expression in expressions:
                picked = [k for k, thing in enumerate(camera.objects) if fits(thing, expression)]
                if any(word in ranked for word in expression.split()):
                    assert number in picked
                    assert len(picked) > 1
                else:
                    assert picked == [number], expression


def test_every_expression_fits_its_object_and_no_other_has_it() -> None:
    for seed in range(15):
        camera = SyntheticCamera(seed=seed, size=SIZE)
        said = camera.expressions(33)
        assert len({text for texts in said for text in texts}) == sum(map(len, said))
        for thing, expressions in zip(camera.objects, said, strict=True):
            assert all(fits(thing, expression) for expression in expressions)


def test_place_words_agree_with_the_masks() -> None:
    checked = 0
    for seed in range(25):
        camera = SyntheticCamera(seed=seed, size=SIZE)
        frame, said = (camera.render(12), camera.expressions(12, kinds=KINDS - {"motion", "direction"}))
        middles = [np.argwhere(mask).mean(axis=0) if mask.any() else np.full(2, np.nan) for mask in frame.masks]
        for number, expressions in enumerate(said):
            for expression in expressions:
                rivals = [k for k, thing in enumerate(camera.objects) if fits(thing, expression) and k != number]
                for words, axis, sign in (("left", 1, -1), ("right", 1, 1), ("topmost", 0, -1), ("lowest", 0, 1)):
                    if expression.startswith(f"the {words}") or f"on the {words}" in expression:
                        checked += 1
                        assert all(sign * (middles[number][axis] - middles[k][axis]) > 0 for k in rivals), expression
    assert checked > 100


def test_motion_words_agree_with_the_flow() -> None:
    ways = {"moving to the right": (0, -1), "moving to the left": (0, 1), "moving up": (1, 1), "moving down": (1, -1)}
    checked = 0
    for seed in range(40):
        camera = SyntheticCamera(seed=seed, size=SIZE)
        frame = camera.render(17)
        if np.abs(frame.flow[:, ~frame.masks.any(axis=0)]).max() > 1e-3:
            continue  # with a still camera the flow is the object's own motion
        for mask, expressions in zip(frame.masks, camera.expressions(17), strict=True):
            for expression in expressions:
                for words, (channel, sign) in ways.items():
                    if expression.endswith(words):
                        checked += 1
                        assert sign * frame.flow[channel][mask].mean() > 0.3
                if "does not move" in expression:
                    checked += 1
                    assert np.abs(frame.flow[:, mask]).max() < 1e-3
    assert checked > 20


def test_hidden_objects_and_motion_in_frame_0_have_no_expressions() -> None:
    silent = 0
    for seed in range(30):
        camera = SyntheticCamera(seed=seed, size=(60, 100), objects=5)
        for index in (0, 25):
            frame, said = camera.render(index), camera.expressions(index)
            for mask, expressions in zip(frame.masks, said, strict=True):
                if mask.sum() < 9:
                    silent += 1
                    assert expressions == ()
            if index == 0:
                assert not any("mov" in text or "going" in text or "still" in text for texts in said for text in texts)
    assert silent


def test_objects_share_looks_and_nearly_every_visible_one_can_be_named() -> None:
    cameras = [SyntheticCamera(seed=seed, size=(60, 100)) for seed in range(40)]
    confusable = [
        any(a.shape == b.shape or a.colour == b.colour for a in c.objects for b in c.objects if a is not b)
        for c in cameras
    ]
    assert np.mean(confusable) > 0.75
    named = [bool(texts) for camera in cameras for texts in camera.expressions(5)]
    assert np.mean(named) > 0.9


def test_kinds_restrict_what_is_said() -> None:
    camera = SyntheticCamera(seed=1, size=SIZE)
    words = {
        word for texts in camera.expressions(8, kinds={"colour", "shape"}) for text in texts for word in text.split()
    }
    assert words <= {*COLOURS, *SHAPES, "a", "an", "the", "object", "thing", "sign"}
    assert "direction" in KINDS


def test_absent_expressions_name_nothing() -> None:
    for seed in range(20):
        camera = SyntheticCamera(seed=seed, size=(40, 40))
        expressions = camera.absent_expressions(np.random.default_rng(seed), 50)
        assert len(expressions) == 50
        assert expressions == camera.absent_expressions(np.random.default_rng(seed), 50)
        for expression in expressions:
            kept = " ".join(word for word in expression.split() if word not in SIZES and word not in TEXTURES)
            assert not any(fits(thing, kept) for thing in camera.objects), expression


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"seed": -1}, "-1"),
        ({"seed": 1.5}, "1.5"),
        ({"size": (0, 64)}, "0"),
        ({"size": (64,)}, "(64,)"),
        ({"objects": 0}, "0"),
        ({"objects": 99}, "99"),
        ({"frames": -3}, "-3"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], value: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        SyntheticCamera(**arguments)  # type: ignore[arg-type]
    assert value in str(caught.value)


def test_bad_calls_are_named() -> None:
    camera = SyntheticCamera(size=(40, 40))
    with pytest.raises(ValueError, match="-2"):
        camera.render(-2)
    with pytest.raises(ValueError, match="-2"):
        camera.expressions(-2)
    with pytest.raises(ValueError, match="taste"):
        camera.expressions(0, kinds={"taste"})
    with pytest.raises(ValueError, match="-5"):
        camera.absent_expressions(np.random.default_rng(0), -5)
