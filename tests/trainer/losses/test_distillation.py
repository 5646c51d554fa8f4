"""Words that the data does not name are answered as before."""

from __future__ import annotations

import torch
from torch import Tensor

from rvos_edge.trainer.checkpoint import Checkpoint
from rvos_edge.trainer.config import TrainConfig
from rvos_edge.trainer.data.sample import Batch
from rvos_edge.trainer.loop import Trainer
from rvos_edge.trainer.losses.distillation import Distillation, default_words
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import small_tokenizer
from rvos_edge.trainer.model.presets import model_config


def _answer(model: HINet, image: Tensor, sentence: Tensor) -> Tensor:
    levels = model.encode_image(image)
    return model.answer(*model.condition(levels, torch.zeros(1, 2, 64, 96)), model.language(sentence))


def _loss(distillation: Distillation, model: HINet) -> Tensor:
    torch.manual_seed(1)
    image, sentence = torch.rand(1, 3, 64, 96) * 255, torch.randn(1, 3, 32)
    flow = torch.zeros(1, 2, 64, 96)
    return distillation(_answer(model, image, sentence), model.features(image), flow, sentence)


def test_it_is_zero_at_first_and_grows_when_answers_change() -> None:
    torch.manual_seed(0)
    model = HINet(config=model_config("test")).eval()
    distillation = Distillation(model)
    assert abs(float(_loss(distillation, model))) < 1e-6
    with torch.no_grad():
        model.decoder.head[-1].bias += torch.tensor([-1.0, 1.0])  # type: ignore[operator]
    loss = _loss(distillation, model)
    assert float(loss) > 0.01
    loss.backward()  # type: ignore[no-untyped-call]
    assert model.decoder.head[-1].bias.grad is not None  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in distillation.teacher.decoder.parameters())


def test_what_is_not_trained_is_not_copied() -> None:
    model = HINet(config=model_config("test"))
    teacher = Distillation(model).teacher
    assert teacher.backbone is model.backbone
    assert teacher.sentence is model.sentence
    assert teacher.decoder is not model.decoder


def test_the_words_are_those_of_imagenet_and_wider_ones() -> None:
    words = default_words()
    assert {"a goldfish", "an animal", "the moving object"} <= set(words)
    assert len(words) > 1000


def test_a_resumed_run_remembers_what_was_answered_before() -> None:
    def trainer() -> Trainer:
        torch.manual_seed(0)
        config = TrainConfig.model_validate(
            {
                "name": "small",
                "model": {"preset": "test"},
                "data": {"sources": [{"kind": "synthetic", "share": 1.0}], "queries": 2},
                "loss": {"distillation": 4.0, "distilled_words": 2},
                "optimizer": {"lr": 0.1, "backbone_lr": 0},
                "freeze_norm": True,
                "iterations": 4,
                "batch": 2,
            }
        )
        return Trainer(config, Checkpoint(HINet(config=config.model_config_of()), small_tokenizer(512)), total=4)

    masks = torch.zeros(2, 2, 64, 96, dtype=torch.uint8)
    masks[:, :, 20:40, 20:60] = 1
    image = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    batch = Batch(image, torch.zeros(2, 2, 64, 96), masks, [["a dog", "a cat"]] * 2)
    one, other = trainer(), trainer()
    one.step(batch)
    weights = {key: value.clone() for key, value in one.model.state_dict().items()}
    state = one.state()
    expected = one.step(batch)
    other.step(batch)
    other.step(batch)
    other.model.load_state_dict(weights)
    other.load_state(state)
    assert other.step(batch) == expected
