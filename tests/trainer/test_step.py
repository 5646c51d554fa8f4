"""One step of training: what moves, what does not, and what a step that fails leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.float64 import use_float64
from support.tiny_training import make_batch, make_trainer, poison, quiet, small_config

from rvos_edge.trainer.data.generate.synthetic import SyntheticDataset
from rvos_edge.trainer.data.sample import Batch, arrange, collate
from rvos_edge.trainer.loop import train


def test_a_loss_that_is_not_finite_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison({1, 3}, monkeypatch)
    path = train(small_config(iterations=4, ema=0.9), tmp_path / "run", console=quiet())
    assert all(value.isfinite().all() for value in load_file(path / "model.safetensors").values())
    log = (tmp_path / "run/train.log").read_text()
    assert "iteration 2: the loss is nan; it is skipped (1 in a row, the run ends after 10)" in log
    assert "iteration 4: the loss is nan; it is skipped (1 in a row" in log


@pytest.mark.parametrize("speed", [{"checkpointing": True}, pytest.param({"compile": "eager"}, marks=pytest.mark.slow)])
def test_speed_changes_nothing_that_is_learnt(speed: dict[str, Any]) -> None:
    plain, fast = make_trainer(small_config()), make_trainer(small_config(speed=speed))
    for _ in range(2):
        assert fast.step(make_batch()) == pytest.approx(plain.step(make_batch()), rel=1e-5)
    for key, value in plain.model.state_dict().items():
        torch.testing.assert_close(fast.model.state_dict()[key], value, rtol=1e-3, atol=1e-5, msg=key)


def test_hardware_settings_reach_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    precision = torch.get_float32_matmul_precision()
    try:
        make_trainer(small_config())
        assert torch.get_float32_matmul_precision() == precision
        assert not torch.backends.cudnn.benchmark
        make_trainer(small_config(speed={"tf32": True, "cudnn_benchmark": True}))
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.benchmark
    finally:
        torch.set_float32_matmul_precision(precision)


def test_checkpointing_keeps_fewer_activations() -> None:
    kept = []
    for checkpointing in (False, True):
        trainer, held = make_trainer(small_config(speed={"checkpointing": checkpointing})), [0]

        def count(tensor: torch.Tensor, held: list[int] = held) -> torch.Tensor:
            held[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            trainer._loss(make_batch())
        kept.append(held[0])
    assert kept[1] < 0.7 * kept[0]


def test_accumulated_parts_give_the_curve_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    use_float64(monkeypatch)
    try:
        data, rng = SyntheticDataset(size=(64, 96), flow_size=(64, 96)), np.random.default_rng(0)
        batch = collate([arrange(data.draw(rng), 2, rng) for _ in range(4)], 2)
        changes = {"batch": 4, "freeze_norm": True, "optimizer": {"lr": 0.01, "clip": 1.0}, "sentence_dropout": 0.1}
        whole, parts = (make_trainer(small_config(**changes, accumulate=count)) for count in (1, 2))
        for _ in range(3):
            # Ignored pixels weigh a little differently: other masks of the dropout would show in per cents.
            assert parts.step(batch) == pytest.approx(whole.step(batch), rel=1e-4)
            assert parts.gradient == pytest.approx(whole.gradient, rel=1e-3)
    finally:
        torch.set_default_dtype(torch.float32)


def test_frozen_parts_do_not_move() -> None:
    trainer = make_trainer(small_config(freeze_early=True, freeze_backbone_norm=True))
    model = trainer.model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trainer.step(make_batch())
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert not any(key.startswith(("flow.", "sentence.", "backbone.stem.", "backbone.layer1.")) for key in moved)
    assert not any(key.startswith("backbone.") and "running" in key for key in moved)
    assert "backbone.layer4.1.conv2.weight" in moved
    assert "language.levels.0.weight" in moved


def test_the_average_follows_the_weights() -> None:
    trainer = make_trainer(small_config(ema=0.5))
    assert trainer.averaged is not None
    key = "decoder.head.2.weight"
    average = trainer.averaged[key].clone()
    for iteration in range(3):
        trainer.step(make_batch())
        decay = min(0.5, (1 + iteration) / (10 + iteration))
        average = decay * average + (1 - decay) * trainer.model.state_dict()[key]
        assert torch.allclose(trainer.averaged[key], average, atol=1e-6)


def test_flow_dropout_of_one_hides_the_flow() -> None:
    batch = make_batch()
    still = Batch(batch.image, torch.zeros_like(batch.flow), batch.masks, batch.expressions)
    losses = []
    for share, given in ((1.0, batch), (0.0, still), (0.0, batch)):
        trainer = make_trainer(small_config(flow_dropout=share))
        # Drawing the share moves the random numbers on: without it, ASPP's dropout would differ too.
        for module in trainer.model.aspp.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        losses.append(trainer.step(given))
    assert losses[0] == losses[1]
    assert losses[1] != losses[2]


def test_sentence_dropout_applies_in_training_only() -> None:
    expressions = [["a dog", "the red ball on the left"]]
    plain, dropped = (make_trainer(small_config(sentence_dropout=share)).objective for share in (0.0, 0.5))
    seen: list[torch.Tensor] = []
    for objective in (plain, dropped):
        objective.model.language.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        objective.sentences(expressions)
        objective.sentences(expressions)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[2], seen[3]), "drawn anew each time, whatever is cached"
    kept = seen[2] != 0
    assert 0 < kept.float().mean() < 1
    assert torch.allclose(seen[2][kept], 2 * seen[0][kept])


def test_the_state_holds_the_sentence_vectors() -> None:
    """Their last bits depend on which sentences were encoded together: a resumed run must not encode them anew."""
    cache = make_trainer(small_config()).objective.sentences
    first = cache([["a dog", "the red ball on the left"]])[0]
    state = cache.state()
    assert state["texts"] == ["a dog", "the red ball on the left"]
    other = make_trainer(small_config(seed=1)).objective.sentences
    other.model.load_state_dict(cache.model.state_dict())
    other.load_state(state)
    assert torch.equal(other([["the red ball on the left", "a dog"]])[0], first.flip(1))


def test_trained_text_is_not_cached() -> None:
    trainer = make_trainer(small_config(optimizer={"lr": 0.01, "text_lr": 1.0}))
    rows = [["a dog"], ["a cat"]]
    before = trainer.objective.sentences(rows)[0]
    trainer.step(make_batch())
    assert not torch.equal(before, trainer.objective.sentences(rows)[0])


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_norms_keep_their_statistics(frozen: bool) -> None:
    trainer = make_trainer(small_config(freeze_norm=frozen))
    norm = next(m for m in trainer.model.decoder.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert norm.running_mean is not None
    before = norm.running_mean.clone()
    trainer.step(make_batch())
    assert torch.equal(norm.running_mean, before) == frozen
