"""The learning rate and the optimiser's groups."""

from __future__ import annotations

import pytest
import torch

from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import model_config
from rvos_edge.trainer.schedule import OptimizerConfig, build_optimizer, learning_rate, set_learning_rate


@pytest.mark.parametrize(
    ("iteration", "expected"), [(0, 0.01), (50, 0.01 * 0.5**0.9), (90, 0.01 * 0.1**0.9), (100, 0.0)]
)
def test_poly_decay(iteration: int, expected: float) -> None:
    assert learning_rate(OptimizerConfig(), iteration, 100) == pytest.approx(expected)


def test_warm_up_rises_to_the_poly_curve() -> None:
    config = OptimizerConfig(lr=1.0, power=1.0, warmup=4)
    rates = [learning_rate(config, iteration, 10) for iteration in range(5)]
    assert rates == pytest.approx([0.25 * 1.0, 0.5 * 0.9, 0.75 * 0.8, 1.0 * 0.7, 0.6])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_groups_keep_their_multiple_and_leave_frozen_ones_out(name: str) -> None:
    model = HINet(config=model_config("test"))
    config = OptimizerConfig(name=name, lr=0.1, backbone_lr=0.1, language_lr=2, text_lr=0.01)  # type: ignore[arg-type]
    for module in model.backbone.early():
        module.requires_grad_(False)
    optimizer = build_optimizer(model, config)
    set_learning_rate(optimizer, 0.5)
    rest, backbone, language, text = optimizer.param_groups
    rates = [group["lr"] for group in (rest, backbone, language, text)]
    assert rates == pytest.approx([0.5, 0.05, 1.0, 0.005])

    def ids(module: torch.nn.Module | None) -> set[int]:
        assert module is not None
        return {id(parameter) for parameter in module.parameters()}

    held = [{id(parameter) for parameter in group["params"]} for group in (rest, backbone, language, text)]
    early = set[int]().union(*(ids(module) for module in model.backbone.early()))
    assert held[1] == ids(model.backbone) - early
    assert held[2] == ids(model.language)
    assert held[3] == ids(model.sentence)
    assert held[0] == ids(model) - ids(model.backbone) - ids(model.language) - ids(model.sentence) - ids(model.flow)


def test_a_multiple_of_zero_has_no_group() -> None:
    optimizer = build_optimizer(HINet(config=model_config("test")), OptimizerConfig(backbone_lr=0, text_lr=0))
    assert len(optimizer.param_groups) == 2  # the new layers and the language projections
