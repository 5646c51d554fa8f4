"""Encoders by name: each exports to a bundle that gives the masks of PyTorch (docs/encoders.md)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import transformers
from safetensors.torch import save_file
from support.tiny_checkpoint import write_checkpoint
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import rvos_edge
from rvos_edge.errors import UserError
from rvos_edge.export.package import export_bundle
from rvos_edge.trainer.checkpoint import load_checkpoint
from rvos_edge.trainer.config import TrainConfig
from rvos_edge.trainer.model.backbone import load_backbone_weights
from rvos_edge.trainer.model.encoders import build_backbone
from rvos_edge.trainer.model.language import read_text_config, tokenize
from rvos_edge.trainer.model.presets import BackboneConfig
from rvos_edge.trainer.model.weights import InitialWeights
from rvos_edge.trainer.predictor import TorchSegmenter
from rvos_edge.trainer.start import starting_point

_WORDS = ("the", "dog", "red", "ball", "left", "on")


def _text_model(folder: Path, kind: str) -> Path:
    """A text model of random weights in Hugging Face's format, with a tokenizer of a few words."""
    start, end = ("<s>", "</s>") if kind == "roberta" else ("<|startoftext|>", "<|endoftext|>")
    tokens = ["<pad>", *_WORDS, "<unk>", start, end]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, vocab[start]), (end, vocab[end])]
    )
    shape = {
        "vocab_size": len(tokens),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    torch.manual_seed(3)
    if kind == "roberta":
        config: Any = transformers.RobertaConfig(**shape, max_position_embeddings=34, type_vocab_size=1)
        model: Any = transformers.RobertaModel(config)
    else:
        ends = {"bos_token_id": vocab[start], "eos_token_id": vocab[end]}
        config = transformers.CLIPTextConfig(**shape, max_position_embeddings=20, hidden_act="quick_gelu", **ends)
        model = transformers.CLIPTextModel(config)
    folder.mkdir()
    prefix = "roberta." if kind == "roberta" else "text_model."  # as in models with heads
    save_file(
        {prefix + key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(config.to_json_string())
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _config(**model: Any) -> TrainConfig:
    data = {"sources": [{"kind": "synthetic", "share": 1.0}]}
    return TrainConfig.model_validate(
        {"name": "own", "model": {"preset": "test", **model}, "data": data, "iterations": 1}
    )


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet34"])
def test_an_official_file_gives_torchvisions_features(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    official = torchvision.models.get_model(name, weights=None).eval()
    torch.save(official.state_dict(), tmp_path / "weights.pth")
    backbone = build_backbone(BackboneConfig(name=name, stride=32)).eval()
    load_backbone_weights(backbone, str(tmp_path / "weights.pth"))
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        levels = backbone(image)
        expected = official.features(image) if name.startswith("mobile") else levels[-1]
    assert torch.equal(levels[-1], expected)
    for level, channels, stride in zip(levels, backbone.channels, backbone.strides, strict=True):
        assert level.shape == (1, channels, 64 // stride, 96 // stride)
    assert backbone.strides == (4, 8, 16, 32)
    assert 0 < len(list(backbone.early())) < len(list(backbone.modules()))


@pytest.mark.parametrize("kind", ["roberta", "clip"])
def test_a_text_model_gives_what_transformers_gives(kind: str, tmp_path: Path) -> None:
    folder = _text_model(tmp_path / "text", kind)
    config = _config(text={"source": str(folder), "max_tokens": 12})
    assert (config.model_config_of().text.kind, config.model_config_of().text.max_tokens) == (kind, 12)
    started = starting_point(config, print)
    theirs = transformers.AutoModel.from_pretrained(folder) if kind == "roberta" else None
    theirs = theirs or transformers.CLIPTextModel.from_pretrained(folder)
    texts = ["the dog", "the red ball on the left"]
    ids, mask = tokenize(started.tokenizer, texts, 12)
    encoder = started.model.sentence.eval()
    with torch.no_grad():
        together = encoder(ids, mask)
        for row, text in enumerate(texts):
            alone = torch.tensor([started.tokenizer.encode(text).ids])
            result = theirs.eval()(alone, attention_mask=torch.ones_like(alone))
            expected = result.last_hidden_state[0, 0 if kind == "roberta" else -1]
            torch.testing.assert_close(together[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("equal_graphs_are_traced_once")
@pytest.mark.parametrize(("name", "stride"), [("mobilenet_v3_small", 32), ("timm/resnet10t", 16)])
def test_a_backbone_and_roberta_become_a_bundle(name: str, stride: int, tmp_path: Path) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="needs the package timm")
    folder = _text_model(tmp_path / "text", "roberta")
    text = read_text_config(str(folder), {})
    backbone = {"name": name, "stride": stride}
    weights = InitialWeights(text=str(folder))
    path = write_checkpoint(tmp_path / "checkpoint", weights=weights, backbone=backbone, text=text.model_dump())
    bundle = export_bundle(path, tmp_path / "bundle")
    ours, theirs = rvos_edge.open(bundle, device="cpu"), TorchSegmenter(load_checkpoint(path))
    frame = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    for segmenter in (ours, theirs):
        segmenter.set_queries(["the red ball", "the dog"])
    margins = theirs.margins(frame).numpy()
    assert np.abs(ours.step(frame).margins - margins).max() < 2e-2 * np.abs(margins).max()


@pytest.mark.slow
@pytest.mark.usefixtures("equal_graphs_are_traced_once")
def test_clip_exports_too(tmp_path: Path) -> None:
    folder = _text_model(tmp_path / "text", "clip")
    text = read_text_config(str(folder), {})
    weights = InitialWeights(text=str(folder))
    path = write_checkpoint(tmp_path / "checkpoint", weights=weights, text=text.model_dump(), flow="none")
    assert (export_bundle(path, tmp_path / "bundle") / "text.onnx").is_file()


def test_a_name_of_the_hub_is_looked_up_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _text_model(tmp_path / "text", "roberta")
    asked: list[str] = []

    def download(name: str, **options: Any) -> str:
        asked.append(name)
        if name == "nobody/nothing":
            raise OSError("no such model")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert starting_point(_config(text="hub:somebody/model"), print).model.config.text.vocab_size == 10
    assert set(asked) == {"somebody/model"}
    with pytest.raises(UserError, match="hub:nobody/nothing: the hub does not give it"):
        _config(text="hub:nobody/nothing").model_config_of()


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("resnet", 32, "no backbone is called resnet; give a classifier of torchvision, or timm/NAME"),
        ("mobilenet_v3_small", 8, "mobilenet_v3_small has stride 32 only, got 8"),
        ("alexnet", 32, "alexnet of torchvision has no sequence of feature maps of strides 4 to 32"),
        ("vit_b_16", 32, "vit_b_16 of torchvision has no sequence"),
    ],
)
def test_other_names_are_refused(name: str, stride: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_backbone(_config(backbone={"name": name, "stride": stride}).model_config_of().backbone)


def test_other_text_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(UserError, match="is of a 't5', which is not known here; give a BERT, RoBERTa or CLIP"):
        _config(text=str(tmp_path)).model_config_of()
    with pytest.raises(UserError, match=r"nowhere.config\.json does not exist"):
        _config(text="nowhere").model_config_of()


def test_timm_gives_backbones_with_a_stride_of_choice(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs the package timm")
    official = timm.create_model("resnet10t", pretrained=False).eval()
    save_file(official.state_dict(), tmp_path / "weights.safetensors")
    backbone = build_backbone(BackboneConfig(name="timm/resnet10t", stride=16)).eval()
    load_backbone_weights(backbone, str(tmp_path / "weights.safetensors"))
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        levels = backbone(image)
        assert levels[-1].shape == (1, backbone.channels[-1], 4, 6)
        assert torch.equal(
            levels[0], official.layer1(official.maxpool(official.act1(official.bn1(official.conv1(image)))))
        )
    assert backbone.strides == (4, 8, 16, 16)
    assert len(backbone.early()) > 0


def test_without_timm_its_backbones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="needs the package timm; pip install timm"):
        build_backbone(BackboneConfig(name="timm/resnet10t", stride=32))
