"""The synthetic figures tell an oracle from a predictor that is deaf to the text."""

from __future__ import annotations

import numpy as np
import pytest
from support.fake_clips import Fake, Masks

from rvos_edge.errors import UserError
from rvos_edge.synthetic.camera import SyntheticCamera
from rvos_edge.trainer.evaluate.synthetic import evaluate_synthetic


def test_they_tell_an_oracle_from_a_deaf_predictor() -> None:
    size, seeds, frames = (96, 160), range(3), 4
    truth: dict[tuple[bytes, str], Masks] = {}
    for camera in (SyntheticCamera(seed=seed, size=size) for seed in seeds):
        rendered = [camera.render(index) for index in range(frames)]
        for number in range(len(camera.objects)):
            said = {s for i in range(frames) for s in camera.expressions(i, kinds=("colour", "shape", "size"))[number]}
            truth |= {(frame.image.tobytes(), s): frame.masks[number] for frame in rendered for s in said}
    empty = np.zeros(size, bool)
    oracle = evaluate_synthetic(
        Fake(lambda f, q: truth.get((f.tobytes(), q), empty)), seeds=seeds, frames=frames, size=size
    )
    assert oracle["j"] == 1.0
    assert oracle["absent_empty"] == 1.0
    assert oracle["objects"] >= 12
    deaf = evaluate_synthetic(Fake(lambda f, q: ~empty), seeds=[0], frames=2, size=size)
    assert deaf["j"] < 0.3
    assert (deaf["absent_empty"], deaf["absent_foreground"]) == (0.0, 1.0)
    with pytest.raises(UserError, match="training scene"):
        evaluate_synthetic(oracle, seeds=[1000])  # type: ignore[arg-type]
