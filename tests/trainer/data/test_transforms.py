"""One view moves image, masks, points and flow alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rvos_edge.trainer.data.transforms import Augmentation, CropView, paper_view, photometric, random_view, whole_view
from rvos_edge.trainer.model.motion import motion_image


def marked(height: int = 60, width: int = 100) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((height, width), bool)
    mask[20:40, 50:80] = True
    return mask.astype(np.uint8)[..., None].repeat(3, axis=2) * 200, mask


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("window", [(40, 10, 60, 40), (-20, -10, 140, 90)])
def test_image_mask_and_points_agree(window: tuple[int, int, int, int], flip: bool) -> None:
    image, mask = marked()
    view = CropView(source=(60, 100), window=window, size=(48, 64), flip=flip)
    shown, seen = view.image(image), view.mask(mask)
    assert shown.shape == (48, 64, 3)
    assert ((shown[..., 0] > 100) == seen).mean() > 0.99
    corners = view.points(np.float32([[50, 20], [80, 40]]))
    rows, columns = np.nonzero(seen)
    assert sorted(corners[:, 0]) == pytest.approx([columns.min(), columns.max() + 1], abs=1.0)
    assert sorted(corners[:, 1]) == pytest.approx([rows.min(), rows.max() + 1], abs=1.0)


def test_flow_is_counted_in_pixels_of_the_output() -> None:
    field = np.broadcast_to(np.float32([2, -1])[:, None, None], (2, 30, 50))
    halved = CropView(source=(60, 100), window=(0, 0, 100, 60), size=(30, 50))
    assert halved.flow(field, (15, 25))[7, 7] == pytest.approx([1.0, -0.5])
    assert halved.flow(field, (15, 25), unit=(30, 50))[7, 7] == pytest.approx([2.0, -1.0])
    zoomed = CropView(source=(60, 100), window=(25, 15, 50, 30), size=(60, 100), flip=True)
    assert zoomed.flow(field, (30, 50))[7, 7] == pytest.approx([-4.0, -2.0]), "a mirror turns x around"


def test_flow_is_cropped_like_the_image_and_zero_beyond_it() -> None:
    field = np.zeros((2, 30, 50), np.float32)
    field[0, 10:20, 25:40] = 5
    _, mask = marked()
    for flip in (False, True):
        view = CropView(source=(60, 100), window=(-20, -10, 140, 90), size=(90, 140), flip=flip)
        moving = view.flow(field, (45, 70))[..., 0]
        assert ((np.abs(moving) > 2.5) == view.mask(mask)[::2, ::2]).mean() > 0.98
        ones = view.flow(np.ones((2, 30, 50), np.float32), (45, 70))
        assert not ones[:4].any()
        assert ones[10:30, 15:55].any(axis=-1).all()


@pytest.mark.parametrize("flip", [False, True])
def test_a_region_has_one_motion_image_whatever_is_cropped_around_it(flip: bool) -> None:
    """The mean and the scale are those of the whole frame, as at run time (supplement, section 5)."""
    rng = np.random.default_rng(0)
    field = np.float32([3.0, -1.0])[:, None, None] + rng.normal(0, 0.5, (2, 60, 100)).astype(np.float32)
    field[:, 20:40, 50:80] += 6
    whole = CropView(source=(60, 100), window=(0, 0, 100, 60), size=(60, 100), flip=flip)
    crop = CropView(source=(60, 100), window=(40, 10, 60, 40), size=(40, 60), flip=flip)
    drawn = []
    for view in (whole, crop):
        camera = view.camera(field)
        flow = view.flow(field, view.size, beyond=camera[:2])
        tensor = torch.from_numpy(flow.transpose(2, 0, 1)[None].copy())
        drawn.append(motion_image(tensor, torch.from_numpy(camera[None]))[0, 0].numpy())
        if view is whole:
            np.testing.assert_allclose(drawn[0], motion_image(tensor)[0, 0].numpy(), atol=1e-4)
        else:
            assert np.abs(drawn[1] - motion_image(tensor)[0, 0].numpy()).mean() > 0.05, "of the crop it is another"
    columns = slice(0, 60) if flip else slice(40, 100)
    np.testing.assert_allclose(drawn[1], drawn[0][10:50, columns], atol=1e-3)


@pytest.mark.parametrize("flip", [False, True])
def test_bars_move_with_the_camera(flip: bool) -> None:
    view = CropView(source=(60, 100), window=(-20, -10, 140, 90), size=(90, 140), flip=flip)
    field = np.broadcast_to(np.float32([3, -1])[:, None, None], (2, 60, 100))
    camera = view.camera(field)
    assert camera.tolist() == pytest.approx([-3 if flip else 3, -1, 0])
    flow = view.flow(field, (90, 140), beyond=camera[:2])
    np.testing.assert_allclose(flow, np.broadcast_to(camera[:2], flow.shape), atol=1e-5)


def test_random_views_keep_an_object_in_sight() -> None:
    _, mask = marked(120, 200)
    boxes = np.float32([[50, 20, 80, 40]])
    for seed in range(60):
        view = random_view(np.random.default_rng(seed), (120, 200), (48, 80), Augmentation(), boxes)
        assert view.mask(mask).sum() >= 0.4 * mask.sum() * view.scale[0] * view.scale[1]


def test_the_same_generator_gives_the_same_view_and_none_only_resizes() -> None:
    one, two = (random_view(np.random.default_rng(5), (60, 100), (48, 64), Augmentation()) for _ in range(2))
    assert one == two
    none = Augmentation.none()
    assert random_view(np.random.default_rng(0), (60, 100), (48, 64), none) == whole_view((60, 100), (48, 64))
    image, _ = marked()
    assert photometric(image, np.random.default_rng(0), none) is image


def test_colours_stay_what_they_are_called() -> None:
    red = np.full((40, 40, 3), (200, 30, 30), np.uint8)
    for seed in range(40):
        out = photometric(red, np.random.default_rng(seed), Augmentation()).astype(int)
        middle = out[10:30, 10:30].reshape(-1, 3).mean(axis=0)
        assert middle[0] > middle[1] + 60
        assert middle[0] > middle[2] + 60


def test_the_papers_view_is_a_crop_of_the_whole_height() -> None:
    rng, augmentation = np.random.default_rng(0), Augmentation.paper()
    views = [random_view(rng, (480, 854), (480, 480), augmentation) for _ in range(200)]
    assert {(view.window[1:], view.size, view.flip) for view in views} == {((0, 480, 480), (480, 480), False)}
    places = [view.window[0] for view in views]
    assert (min(places), max(places)) == pytest.approx((0, 854 - 480), abs=10)
    # At height 480 no pixel is resampled.
    image = rng.integers(0, 255, (480, 854, 3), np.uint8)
    assert np.array_equal(views[0].image(image), image[:, places[0] : places[0] + 480])
    assert np.array_equal(photometric(image, rng, augmentation), image)


def test_the_papers_view_resizes_to_the_height_first() -> None:
    rng = np.random.default_rng(0)
    assert paper_view(rng, (720, 1280), (480, 480)).window[1:] == (0, 720, 720)
    assert paper_view(rng, (720, 1280), (480, 480)).scale == (2 / 3, 2 / 3)
    assert {paper_view(rng, (48, 85), (48, 48), flip=0.5).flip for _ in range(50)} == {False, True}


def test_a_picture_narrower_than_the_crop_lies_between_bars() -> None:
    view = paper_view(np.random.default_rng(0), (960, 540), (480, 480))
    x, _, width, height = view.window
    assert (width, height) == (960, 960)
    assert -420 <= x <= 0
    shown = view.image(np.full((960, 540, 3), 200, np.uint8), fill=7)
    columns = (shown[:, :, 0] == 200).all(axis=0)
    assert columns.sum() == pytest.approx(270, abs=1)
    assert (shown[:, ~columns] == 7).all()
