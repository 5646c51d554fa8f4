"""A run starts from whatever weights fit, and says what did not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rvos_edge.errors import UserError
from rvos_edge.trainer.config import TrainConfig
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.start import starting_point


def _config(path: Path, **changes: Any) -> TrainConfig:
    document = {
        "name": "small",
        "model": {"preset": "test"},
        "init_from": str(path),
        "data": {"sources": [{"kind": "synthetic", "share": 1.0}]},
        "iterations": 1,
        **changes,
    }
    return TrainConfig.model_validate(document)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {key: value.clone() for key, value in HINet(config=_config(Path()).model_config_of()).state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "model._orig_mod."])
@pytest.mark.parametrize(
    "kind", ["safetensors", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("pth", "lightning"))]
)
def test_weights_are_read_under_the_names_of_wrappers(
    kind: str, prefix: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    named = {prefix + key: value for key, value in weights.items()}
    path = tmp_path / f"weights.{kind.replace('lightning', 'ckpt')}"
    if kind == "safetensors":
        save_file(named, path)
    else:
        torch.save(named if kind == "pth" else {"state_dict": named, "epoch": 3, "global_step": 7}, path)
    said: list[str] = []
    model = starting_point(_config(path), said.append).model
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert said == [f"init_from {path}: {len(weights)} of {len(weights)} tensors are taken"]


def test_what_does_not_fit_is_said(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({**weights, "critic.weight": torch.ones(2)}, path)
    said: list[str] = []
    model = starting_point(_config(path, model={"preset": "test", "aspp_channels": 8}), said.append).model
    assert torch.equal(model.state_dict()["backbone.stem.conv1.weight"], weights["backbone.stem.conv1.weight"])
    assert "not in it, or of another shape: aspp (" in said[1]
    assert "left out: " in said[2]
    assert "critic (1)" in said[2]


# Names as in the published code of RefVOS and of MTTR.
_REFVOS = ("backbone.conv1.weight", "backbone.layer1.0.conv1.weight", "classifier.0.convs.0.0.weight", "lang_model.w")
_MTTR = ("transformer.encoder.layers.0.linear1.weight", "backbone.0.body.0.weight", "instance_kernels_head.layers.0.w")


@pytest.mark.parametrize("names", [_REFVOS, _MTTR])
def test_weights_of_other_networks_are_refused_with_what_is_missing(names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "official.pth"
    torch.save({"model": {name: torch.ones(64, 64, 1, 1) for name in names}}, path)
    with pytest.raises(UserError) as caught:
        starting_point(_config(path), print)
    message = str(caught.value)
    assert message.startswith(f"init_from {path} is of another network: it lacks backbone (")
    assert all(f" {part} (" in message for part in ("language", "vision", "interaction", "decoder"))
    assert "\n" not in message


def test_a_start_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^init_from .*none\.pth does not exist; give a checkpoint or a file"):
        starting_point(_config(tmp_path / "none.pth"), print)


def test_code_in_a_file_of_weights_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Shouting:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("it ran",)

    torch.save({"state_dict": Shouting()}, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match="not a readable state dict"):
        starting_point(_config(tmp_path / "bad.ckpt"), print)
    assert "it ran" not in capsys.readouterr().out
