"""The text model learns the expressions' words, and is then a text model like any other."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from support.layouts import write_davis17
from transformers import BertForMaskedLM
from typer.testing import CliRunner

import rvos_edge.trainer.tasks.mlm
from rvos_edge.cli import app
from rvos_edge.errors import UserError
from rvos_edge.trainer.config import MlmConfig
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import load_text_weights, small_tokenizer, tokenize
from rvos_edge.trainer.model.presets import model_config
from rvos_edge.trainer.tasks.mlm import mask_tokens, masked_language_model, train_text


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_davis17(tmp_path / "DAVIS", {"train": ["bear", "dog"], "val": ["goat"]}, frames=1)


def _config(root: Path, **changes: Any) -> MlmConfig:
    source = {"kind": "davis17", "root": str(root), "share": 1}
    document = {"task": "mlm", "name": "text", "model": {"preset": "test"}, "sources": [source], **changes}
    return MlmConfig.model_validate(document)


def _quiet() -> Console:
    return Console(file=io.StringIO(), width=500)


def test_the_loss_falls_and_the_result_is_a_text_model(root: Path, tmp_path: Path) -> None:
    config = _config(root, epochs=30, batch=4, lr=6e-3, log_every=1)
    console = _quiet()
    folder = train_text(config, tmp_path / "run", console=console)
    lines = [line for line in console.file.getvalue().splitlines() if " loss " in line]  # type: ignore[attr-defined]
    losses = [float(line.split(" loss ")[1].split()[0]) for line in lines]
    # Two objects of two videos, said in four ways: sixteen expressions.
    assert len(losses) == 30 * 4
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])
    assert json.loads((folder / "card.json").read_text())["expressions"] == 16

    model = HINet(config=model_config("test"))
    before = model.sentence.bert.state_dict()["encoder.layer.0.output.dense.weight"].clone()
    tokenizer = load_text_weights(model.sentence, str(folder))
    assert tokenizer.encode("the left box").ids == small_tokenizer(512).encode("the left box").ids
    assert not torch.equal(before, model.sentence.bert.state_dict()["encoder.layer.0.output.dense.weight"])
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(value, stored[f"bert.{key}"]) for key, value in model.sentence.bert.state_dict().items())
    # And one that transformers itself reads, head and all.
    whole = BertForMaskedLM.from_pretrained(folder)
    assert torch.equal(whole.cls.predictions.decoder.weight, stored["bert.embeddings.word_embeddings.weight"])
    assert torch.equal(whole.cls.predictions.transform.dense.weight, stored["cls.predictions.transform.dense.weight"])


def test_fifteen_percent_are_asked_for_and_most_of_them_hidden() -> None:
    tokenizer = small_tokenizer(512)
    texts = ["the large red ball on the left of a small blue box and the dog"] * 400
    ids, attention = tokenize(tokenizer, texts, 32)
    seen, wanted = mask_tokens(ids, tokenizer, 512, 0.15, np.random.default_rng(0))
    asked = wanted != -100
    words = int(attention[0].sum()) - 2
    assert set(asked.sum(1).tolist()) == {max(1, round(0.15 * words))}
    assert torch.equal(wanted[asked], ids[asked])
    assert torch.equal(seen[~asked], ids[~asked]), "what is not asked for is left alone"
    special = torch.tensor([tokenizer.token_to_id(token) for token in ("[PAD]", "[CLS]", "[SEP]")])
    assert not torch.isin(wanted[asked], special).any()
    mask = tokenizer.token_to_id("[MASK]")
    fate = Counter(
        "mask" if now == mask else "same" if now == was else "other"
        for now, was in zip(seen[asked].tolist(), ids[asked].tolist(), strict=True)
    )
    total = int(asked.sum())
    assert fate["mask"] / total == pytest.approx(0.8, abs=0.05)
    assert fate["same"] / total == pytest.approx(0.1, abs=0.04)
    assert fate["other"] / total == pytest.approx(0.1, abs=0.04)


def test_at_least_one_token_is_masked() -> None:
    tokenizer = small_tokenizer(512)
    ids, _ = tokenize(tokenizer, ["dog", "the red ball"], 32)
    _, wanted = mask_tokens(ids, tokenizer, 512, 0.15, np.random.default_rng(0))
    assert (wanted != -100).sum(1).tolist() == [1, 1]


def test_an_official_checkpoint_brings_its_head(tmp_path: Path) -> None:
    text = model_config("test").text
    model, tokenizer, headed = masked_language_model(text, None)
    assert not headed
    state = {key: value.clone() for key, value in model.state_dict().items()}
    # As Google's checkpoint names them.
    old = {key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
           for key, value in state.items()}  # fmt: skip
    save_file({key: value.contiguous() for key, value in old.items()}, tmp_path / "model.safetensors")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    again, _, headed = masked_language_model(text, str(tmp_path))
    assert headed
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    assert again.cls.predictions.decoder.weight is again.bert.embeddings.word_embeddings.weight


def test_the_command_tells_tasks_apart_and_overwrites_nothing(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.json"
    file.write_text(_config(root, batch=16).model_dump_json(), encoding="utf-8")
    arguments = ["train", str(file), "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert f"Wrote {tmp_path / 'run/text'}" in result.stdout
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "already holds a text model; choose another --output" in again.stderr


def test_a_source_without_written_expressions_is_refused(tmp_path: Path) -> None:
    config = MlmConfig.model_validate(
        {"task": "mlm", "name": "text", "model": {"preset": "test"}, "sources": [{"kind": "synthetic", "share": 1}]}
    )
    with pytest.raises(UserError, match="kind synthetic has no written expressions"):
        train_text(config, tmp_path / "run", console=_quiet())
    with pytest.raises(UserError, match="needs a text model to start from"):
        train_text(config.model_copy(update={"model": {"preset": "edge"}}), tmp_path / "run", console=_quiet())
    assert not (tmp_path / "run").exists()


def test_a_full_disk_leaves_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rvos_edge.trainer.tasks.mlm, "save_file", full)
    with pytest.raises(UserError, match=r"Cannot save the text model .*No space left on device"):
        train_text(_config(root, batch=16), tmp_path / "run", console=_quiet())
    assert not list((tmp_path / "run").glob("*text*"))
