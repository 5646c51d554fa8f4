"""Teachers of the real classes with tiny sizes and random weights, written as their checkpoints are published."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForZeroShotObjectDetection,
    BertConfig,
    BertTokenizer,
    CLIPTextConfig,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    OmDetTurboConfig,
    OmDetTurboProcessor,
    PreTrainedConfig,
    Sam2ImageProcessor,
    Sam2VideoConfig,
    Sam2VideoProcessor,
    Sam2VideoVideoProcessor,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3LiteTextConfig,
    Sam3Processor,
    Sam3TrackerVideoConfig,
    Sam3VideoConfig,
    Sam3VideoProcessor,
    SwinConfig,
)

_SIDE = 112
_LETTERS = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
_WIDTH = 128
"""Width of everything that has one; twice that of SAM 2's memory."""
_MEMORY = {
    "memory_attention_hidden_size": _WIDTH,
    "memory_attention_num_layers": 1,
    "memory_attention_feed_forward_hidden_size": _WIDTH,
    "memory_encoder_hidden_size": _WIDTH,
    "memory_encoder_output_channels": 64,
    "mask_downsampler_embed_dim": _WIDTH,
    "memory_fuser_num_layers": 1,
    "memory_fuser_embed_dim": _WIDTH,
    "memory_fuser_intermediate_dim": _WIDTH,
}
_DECODER = {"hidden_size": _WIDTH, "mlp_dim": _WIDTH, "num_attention_heads": 2, "iou_head_hidden_dim": _WIDTH}


def write_sam3_video(path: Path, *, lite: bool = False) -> Path:
    """SAM 3 on videos; ``lite``: with the text model of LiteText."""
    tracker = Sam3TrackerVideoConfig(
        vision_config=_sam3_vision(),
        prompt_encoder_config={"hidden_size": _WIDTH, "image_size": _SIDE},
        mask_decoder_config=_DECODER,
        image_size=_SIDE,
        memory_attention_rope_feat_sizes=[8, 8],
        **_MEMORY,
    )
    # Whatever random weights detect is an object.
    least = dict.fromkeys(("score_threshold_detection", "new_det_thresh"), 0.0)
    config = Sam3VideoConfig(
        detector_config=_sam3(lite), tracker_config=tracker, low_res_mask_size=32, hotstart_delay=0, **least
    )
    video = Sam2VideoVideoProcessor(size=_square())
    return _write(path, config, AutoModel, Sam3VideoProcessor(_sam3_images(), video, _clip_tokenizer()))


def write_sam3_images(path: Path) -> Path:
    """SAM 3 LiteText on pictures."""
    return _write(path, _sam3(lite=True), AutoModel, Sam3Processor(_sam3_images(), _clip_tokenizer()))


def write_sam2_video(path: Path) -> Path:
    """SAM 2 on videos."""
    hiera = {
        "model_type": "sam2_hiera_det_model",
        "image_size": [128, 128],
        "hidden_size": 16,
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 48, 64],
        "num_attention_heads_per_stage": [1, 1, 1, 1],
        "window_size_per_stage": [4, 4, 4, 4],
        "global_attention_blocks": [3],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": hiera,
        "backbone_channel_list": [64, 48, 32, 16],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": _WIDTH,
    }
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": _WIDTH, "image_size": 128},
        mask_decoder_config=_DECODER,
        image_size=128,
        memory_attention_rope_feat_sizes=[8, 8],
        **_MEMORY,
    )
    size = {"height": 128, "width": 128}
    processor = Sam2VideoProcessor(Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size))
    return _write(path, config, AutoModel, processor)


def write_grounding_dino(path: Path) -> Path:
    """Grounding DINO."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "a", "dog", "cat"]
    tokenizer = BertTokenizer({word: number for number, word in enumerate(words)})
    config = GroundingDinoConfig(
        backbone_config=_swin(["stage2", "stage3", "stage4"]),
        text_config=BertConfig(
            vocab_size=len(words), hidden_size=_WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        ),
        d_model=_WIDTH,
        num_queries=6,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=_WIDTH,
        decoder_ffn_dim=_WIDTH,
        max_text_len=16,
    )
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return _write(path, config, AutoModelForZeroShotObjectDetection, GroundingDinoProcessor(images, tokenizer))


def write_omdet_turbo(path: Path) -> Path:
    """OmDet-Turbo."""
    config = OmDetTurboConfig(
        backbone_config=_swin(["stage2", "stage3", "stage4"]),
        text_config=_clip_text(),
        image_size=64,
        apply_layernorm_after_vision_backbone=False,
        text_projection_in_dim=_WIDTH,
        text_projection_out_dim=_WIDTH,
        class_embed_dim=_WIDTH,
        task_encoder_hidden_dim=64,
        encoder_hidden_dim=64,
        decoder_hidden_dim=64,
        vision_features_channels=[64] * 3,
        encoder_in_channels=[16, 32, 64],
        encoder_attention_heads=2,
        decoder_num_heads=2,
        encoder_dim_feedforward=_WIDTH,
        decoder_dim_feedforward=_WIDTH,
        decoder_num_layers=1,
        num_queries=6,
    )
    images = GroundingDinoImageProcessor(size={"height": 64, "width": 64}, do_pad=False)
    processor = OmDetTurboProcessor(images, _clip_tokenizer())
    return _write(path, config, AutoModelForZeroShotObjectDetection, processor)


def _write(path: Path, config: PreTrainedConfig, kind: Any, processor: Any) -> Path:
    torch.manual_seed(0)
    kind.from_config(config).save_pretrained(path)
    processor.save_pretrained(path)
    return path


def _square() -> dict[str, int]:
    return {"height": _SIDE, "width": _SIDE}


def _sam3_images() -> Sam3ImageProcessor:
    return Sam3ImageProcessor(size=_square(), mask_size={"height": 32, "width": 32})


def _sam3_vision() -> dict[str, Any]:
    vit = {
        "model_type": "sam3_vit_model",
        "hidden_size": _WIDTH,
        "intermediate_size": _WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": _SIDE,
        "patch_size": 14,
        "window_size": 4,
        "global_attn_indexes": [1],
        "pretrain_image_size": _SIDE,
    }
    return {
        "model_type": "sam3_vision_model",
        "backbone_config": vit,
        "fpn_hidden_size": _WIDTH,
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    }


def _sam3(lite: bool) -> PreTrainedConfig:
    part = {"hidden_size": _WIDTH, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": _WIDTH}
    parts: dict[str, Any] = {
        "vision_config": _sam3_vision(),
        "geometry_encoder_config": part,
        "detr_encoder_config": part,
        "detr_decoder_config": {**part, "num_queries": 4},
        "mask_decoder_config": {"hidden_size": _WIDTH, "num_attention_heads": 2},
    }
    if not lite:
        return Sam3Config(text_config=_clip_text(), **parts)
    text = {key: value for key, value in _clip_text().to_dict().items() if key != "model_type"}
    names = ("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers")
    lite_text = {name: text[name] for name in (*names, "num_attention_heads", "max_position_embeddings")}
    return Sam3LiteTextConfig(text_config=lite_text, **parts)


def _clip_text() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=2 + len(_LETTERS),
        hidden_size=_WIDTH,
        intermediate_size=_WIDTH,
        projection_dim=_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
    )


def _clip_tokenizer() -> CLIPTokenizer:
    words = ["<|startoftext|>", "<|endoftext|>", *_LETTERS]
    return CLIPTokenizer({word: number for number, word in enumerate(words)}, [])


def _swin(features: list[str]) -> SwinConfig:
    return SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=2,
        out_features=features,
    )
