"""The shipped configurations hold the numbers of the paper (supplement, section 1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from rvos_edge.errors import UserError
from rvos_edge.trainer.config import MlmConfig, TrainConfig, load_config

_PRE = {
    "source": "youtube_vos",
    "batch": 24,
    "iterations": 50_000,
    "epochs": None,
    "background": 1.0,
    "object": 1.0,
    "hardest": 1.0,
    "lr": 0.01,
    "clip": None,
}
_TUNE = {"batch": 8, "iterations": None, "background": 0.9, "object": 1.1, "hardest": 0.15, "lr": 0.001}
_TABLE = {
    "pretrain-youtube-vos": _PRE,
    "finetune-davis16": {**_TUNE, "source": "davis", "epochs": 10, "clip": 1.0},
    "finetune-davis17": {**_TUNE, "source": "davis17", "epochs": 10, "clip": 1.0},
    "finetune-a2d": {**_TUNE, "source": "a2d", "epochs": 20, "clip": None},
}


@pytest.fixture(autouse=True)
def _data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", "/data")


def _load(name: str) -> TrainConfig:
    config = load_config(Path(name))
    assert isinstance(config, TrainConfig)
    return config


@pytest.mark.parametrize("name", _TABLE)
def test_every_number_of_the_table(name: str) -> None:
    config = _load(name)
    (source,) = config.data.sources
    assert {
        "source": source.kind,
        "batch": config.batch,
        "iterations": config.iterations,
        "epochs": config.epochs,
        "background": config.loss.background,
        "object": config.loss.object,
        "hardest": config.loss.hardest,
        "lr": config.optimizer.lr,
        "clip": config.optimizer.clip,
    } == _TABLE[name]


@pytest.mark.parametrize("name", _TABLE)
def test_what_all_have_in_common(name: str) -> None:
    config = _load(name)
    optimizer, data = config.optimizer, config.data
    assert config.amp == "fp16"
    assert (optimizer.name, optimizer.weight_decay, optimizer.power, optimizer.warmup) == ("sgd", 1e-4, 0.9, 0)
    assert (optimizer.backbone_lr, optimizer.language_lr) == (1.0, 1.0)
    assert (data.view, data.size, data.flip, data.queries, data.absent_share) == ("paper", (480, 480), 0, 1, 0)
    # Nothing that goes beyond the paper.
    assert (config.loss.dice, config.loss.alignment, config.flow_dropout, config.ema) == (0, 0, 0, 0)
    network = config.model_config_of()
    assert network == _load("pretrain-youtube-vos").model_config_of()
    assert (network.preset, network.backbone.name, network.backbone.stride) == ("paper", "resnet101", 8)
    assert (network.text.hidden_size, network.text.layers) == (768, 12)
    assert network.raft is not None
    assert (network.raft.variant, network.raft.iterations) == ("large", 12)
    assert (network.level_channels, network.aspp_channels) == ((48, 48, 48), 256)


def test_pre_training_starts_from_published_weights_and_fine_tuning_from_pre_training() -> None:
    pre = _load("pretrain-youtube-vos")
    assert pre.init_from is None
    assert pre.weights.backbone
    assert pre.weights.text
    assert pre.weights.raft
    for name in _TABLE.keys() - {"pretrain-youtube-vos"}:
        assert _load(name).init_from == f"runs/{pre.name}/checkpoint"


def test_the_text_model_is_tuned_for_one_epoch_on_refcoco() -> None:
    config = load_config(Path("mlm"))
    assert isinstance(config, MlmConfig)
    assert (config.epochs, config.masked) == (1, 0.15)
    assert {source.kind for source in config.sources} == {"refcoco"}
    assert config.model_config_of().text == _load("pretrain-youtube-vos").model_config_of().text


def test_an_epoch_is_every_sample_once() -> None:
    config = _load("finetune-davis16")
    # The last batch takes two samples of the eleventh epoch.
    assert config.steps(2079) == 2599 == -(-10 * 2079 // 8)
    assert _load("pretrain-youtube-vos").steps(None) == 50_000
    with pytest.raises(UserError, match="a source of kind davis has no end; give iterations"):
        config.steps(None)
