from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from rvos_edge.result import Result
from rvos_edge.streaming.overlay import contact_sheet, draw_note, draw_overlay, palette, query_colour


def make_result(masks: np.ndarray, queries: tuple[str, ...] | None = None) -> Result:
    return Result(
        queries=queries or tuple(f"query {index}" for index in range(len(masks))),
        masks=masks,
        margins=np.zeros((len(masks), 2, 2), np.float32),
        scores=np.linspace(0.9, 0.1, len(masks), dtype=np.float32),
        timings={"backbone": 1.0},
        flow_used=False,
        flow=None,
        index=0,
    )


def test_palette_is_the_official_one() -> None:
    assert palette().shape == (256, 3)
    assert palette()[:6].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]]
    assert palette()[8].tolist() == [64, 0, 0]
    assert palette()[255].tolist() == [224, 224, 192]


def test_mask_is_blended_and_the_rest_is_left_alone() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    masks = np.zeros((1, 40, 60), bool)
    masks[0, 10:20, 30:50] = True
    drawn = draw_overlay(image, make_result(masks), opacity=0.5, outline=False, legend=False)
    assert (drawn[masks[0]] == (50, 130, 165)).all()  # BGR: half of 100 and half of orange
    assert (drawn[~masks[0]] == 100).all()
    assert (image == 100).all(), "the input is not drawn on"


def test_outline_is_bright_and_stays_near_the_edge() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    masks = np.zeros((1, 40, 60), bool)
    masks[0, 10:30, 20:50] = True
    drawn = draw_overlay(image, make_result(masks), legend=False)
    assert drawn[10, 30].tolist() == [0, 159, 230]
    assert drawn[20, 30].tolist() == [50, 130, 165]
    assert drawn[5, 30].tolist() == [100, 100, 100]


def test_legend_darkens_the_top_left_and_shows_bright_text() -> None:
    image = np.full((360, 640, 3), 200, np.uint8)
    drawn = draw_overlay(image, make_result(np.zeros((2, 360, 640), bool), ("a dog", "a ball")))
    corner = drawn[4:30, 4:120]
    assert corner.min() < 80
    assert corner.max() == 255
    assert (drawn[100:] == 200).all()


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (48, 64), (720, 1280)])
def test_legend_fits_any_image(size: tuple[int, int]) -> None:
    masks = np.ones((12, *size), bool)
    queries = ("", "x" * 500, "собака слева", "左边的狗", "der große Hund\nin two lines", "\N{DOG FACE}", *("q",) * 6)
    drawn = draw_overlay(np.zeros((*size, 3), np.uint8), make_result(masks, queries))
    assert drawn.shape == (*size, 3)


def test_without_queries_the_picture_is_the_frame() -> None:
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(draw_overlay(image, make_result(np.zeros((0, 32, 32), bool))), image)


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        draw_overlay(np.zeros((32, 32, 3), np.uint8), make_result(np.zeros((1, 16, 16), bool)))


def test_hd_overlay_takes_milliseconds() -> None:
    """About 3 ms on a desktop core; the bound leaves room for a busy machine, not for float maths on whole frames."""
    masks = np.zeros((3, 720, 1280), np.uint8)
    for index, mask in enumerate(masks):
        cv2.circle(mask, (300 + 300 * index, 400), 150, 1, cv2.FILLED)
    image, result = np.zeros((720, 1280, 3), np.uint8), make_result(masks.astype(bool))
    took = []
    for _ in range(10):
        start = time.perf_counter()
        draw_overlay(image, result)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.030


def test_contact_sheet_lays_out_rows() -> None:
    images = [np.full((30, 40, 3), 50 * index, np.uint8) for index in range(1, 6)]
    sheet = contact_sheet(images, 3, [f"frame {index}" for index in range(5)])
    assert sheet.shape[1] > 3 * 40
    assert sheet.shape[0] > 2 * 30
    for value in (50, 100, 150, 200, 250):
        assert (sheet == value).all(axis=2).sum() >= 30 * 40


def test_contact_sheet_resizes_odd_ones_and_refuses_none() -> None:
    assert contact_sheet([np.zeros((30, 40, 3), np.uint8), np.zeros((60, 90, 3), np.uint8)], 2).shape[0] < 40
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], 3)
    with pytest.raises(ValueError, match="captions"):
        contact_sheet([np.zeros((30, 40, 3), np.uint8)], 1, ["a", "b"])


def test_a_note_is_one_line_at_the_bottom_whose_end_is_always_seen() -> None:
    image = np.full((120, 400, 3), 90, np.uint8)
    before = image.copy()
    short, long = draw_note(image, "/a dog_"), draw_note(image, "x" * 300 + "/a dog_")
    assert (image == before).all()
    assert (short[:90] == 90).all()
    assert (short[-15:] != 90).any()
    # The end of a long line stands at the right edge, the beginning of a short one at the left.
    assert (long[-15:, 330:].max(2) > 150).any()
    assert not (short[-15:, 330:].max(2) > 150).any()


def test_a_hidden_query_is_listed_and_not_drawn() -> None:
    masks = np.zeros((2, 120, 400), np.bool_)
    masks[0, 60:80, 10:50] = True
    masks[1, 60:80, 200:250] = True
    scores = np.asarray([0.5, 0.5], np.float32)
    result = Result(("one", "two"), masks, np.zeros((2, 4, 4), np.float32), scores, {}, False, None, 0)
    image = np.full((120, 400, 3), 90, np.uint8)
    both, second = draw_overlay(image, result), draw_overlay(image, result, hidden=frozenset({0}))
    assert (second[55:85, :60] == 90).all()
    assert (second[55:, 60:] == both[55:, 60:]).all(), "the other keeps its colour"
    assert (second[:40] != both[:40]).any(), "the legend says so"
    assert (draw_overlay(image, result, opacity=1, hidden=frozenset({0}))[70, 225] == query_colour(1)).all()


def test_a_name_stands_on_the_largest_part_of_its_mask() -> None:
    masks = np.zeros((1, 240, 320), bool)
    masks[0, 100:200, 150:300], masks[0, 20:30, 10:20] = True, True
    image = np.full((240, 320, 3), 200, np.uint8)
    plain, named = (draw_overlay(image, make_result(masks, ("dog",)), legend=False, names=names) for names in (0, 1))
    rows, columns = np.nonzero((plain != named).any(axis=2))
    assert 80 < rows.min() <= rows.max() < 100, "above the mask"
    assert 150 < columns.min() <= columns.max() < 300
    masks[0, :, 150:300] = True  # no room above
    assert (draw_overlay(image, make_result(masks, ("dog",)), legend=False, names=True)[:12, 200:250] == 255).any()


def test_colour_blind_people_can_tell_the_first_seven_queries_apart() -> None:
    """Distances in CIELAB as people without red or without green receptors see them (Machado et al., 2009)."""
    without_red = [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    without_green = [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    colours = np.array([query_colour(query)[::-1] for query in range(7)]) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    for matrix in (np.eye(3), without_red, without_green):
        seen = np.clip(linear @ np.transpose(matrix), 0, 1)
        seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        lab = cv2.cvtColor(seen[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0]
        distances = np.linalg.norm(lab[:, None] - lab[None], axis=2)
        assert distances[~np.eye(7, dtype=bool)].min() > 12
