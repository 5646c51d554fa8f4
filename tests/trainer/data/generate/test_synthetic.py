"""The drawn camera as a training set."""

from __future__ import annotations

import numpy as np
import pytest

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.generate.synthetic import EVALUATION_SEEDS, TRAIN_SEEDS, SyntheticDataset


def test_samples_have_present_and_absent_pairs_and_repeat() -> None:
    data = SyntheticDataset(size=(64, 96), flow_size=(32, 48))
    sample, again = (data.draw(np.random.default_rng(4)) for _ in range(2))
    assert sample.image.shape == (64, 96, 3)
    assert sample.flow.shape == (32, 48, 2)
    filled = sample.masks.any(axis=(1, 2))
    assert 0 < filled.sum() < len(sample.expressions)
    assert sample.expressions == again.expressions
    assert np.array_equal(sample.image, again.image)


def test_training_and_evaluation_use_other_seeds() -> None:
    assert EVALUATION_SEEDS[1] <= TRAIN_SEEDS[0]
    with pytest.raises(UserError, match="empty range"):
        SyntheticDataset(size=(64, 96), flow_size=(32, 48), seeds=(5, 5))
