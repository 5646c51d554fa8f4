"""Reflections and shadows lie on the ground, not in the object's mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rvos_edge.trainer.data.generate.copy_paste import ComposedDataset
from rvos_edge.trainer.data.generate.reflections import Ground
from rvos_edge.trainer.data.readers.coco import CocoDataset
from rvos_edge.trainer.data.transforms import Augmentation

STILL_WATER = Ground(base=30, length=1, slant=0, opacity=1, fade=0, light=1, ripple=0, blur=0.1)
CORNER = (20, 10)
FREE = np.ones((64, 64), bool)


def _frame() -> np.ndarray:
    return np.full((64, 64, 3), 100, np.uint8)


def _flag() -> tuple[np.ndarray, np.ndarray]:
    """20 rows and 10 columns, red above and blue below; it stands on row 30."""
    patch = np.zeros((20, 10, 3), np.uint8)
    patch[:10, :, 0], patch[10:, :, 2] = 200, 200
    return patch, np.ones((20, 10), np.float32)


def _show(ground: Ground, free: np.ndarray = FREE) -> tuple[np.ndarray, np.ndarray]:
    image = _frame()
    return image, ground.show(np.random.default_rng(0), image, *_flag(), CORNER, free)


def test_still_water_shows_it_upside_down() -> None:
    image, seen = _show(STILL_WATER)
    assert image[35, 25].tolist() == [0, 0, 200]
    assert image[45, 25].tolist() == [200, 0, 0]
    assert seen[32:48, 21:29].all()
    seen[30:51, 19:31] = False
    assert not seen.any()
    assert (image[:30] == 100).all()  # nothing above the water: the object itself is pasted later


def test_a_shadow_has_no_colours_and_falls_where_the_light_sends_it() -> None:
    image, seen = _show(Ground(30, length=-0.5, slant=1, opacity=0.5, fade=0, light=0, ripple=0, blur=0.1))
    assert set(np.unique(image)) <= set(range(50, 101))
    assert (image[..., 0] == image[..., 2]).all()
    rows, columns = np.nonzero(seen)
    assert rows.max() <= 30
    assert rows.min() >= 19
    assert columns[rows == rows.min()].mean() > columns[rows == rows.max()].mean() + 10


def test_what_stands_before_it_hides_it() -> None:
    free = FREE.copy()
    free[:, :25] = False
    image, seen = _show(STILL_WATER, free)
    assert (image[:, :25] == 100).all()
    assert not seen[:, :25].any()
    assert seen[35, 27]


@pytest.mark.parametrize("seed", range(20))
def test_any_draw_stays_in_the_frame_and_off_the_object(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ground, image = Ground.draw(rng, base=30, height=20), _frame()
    seen = ground.show(rng, image, *_flag(), CORNER, FREE)
    assert seen.shape == (64, 64)
    assert (seen[31:] if ground.length < 0 else seen[:30]).sum() == 0
    assert ground.light == 0 or ground.length > 0


def test_compositions_have_it_as_often_as_asked_for_and_never_in_a_mask(shared: Path) -> None:
    coco = CocoDataset(shared / "data/coco-small", size=(96, 160), flow_size=(48, 80), augmentation=Augmentation.none())
    shown: list[np.ndarray] = []

    class Counting(Ground):
        def show(self, rng, image, patch, alpha, corner, free):  # type: ignore[no-untyped-def]
            before = image.copy()
            shown.append(super().show(rng, image, patch, alpha, corner, free))
            assert (image[~free] == before[~free]).all()
            return shown[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rvos_edge.trainer.data.generate.copy_paste.Ground", Counting)
        for share in (0.0, 0.9):
            composed = ComposedDataset(coco=coco, grounds=share)
            for seed in range(12):
                composed.scene(np.random.default_rng(seed))
            assert bool(shown) == bool(share)
    assert len(shown) >= 12
