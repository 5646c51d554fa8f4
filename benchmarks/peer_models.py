"""Baselines for the runtime: the network in plain PyTorch, a network of RefVOS' shape, OpenCV's optical flow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation import deeplabv3_resnet101
from transformers import BertConfig, BertModel

from rvos_edge.trainer.checkpoint import Checkpoint
from rvos_edge.trainer.model.language import tokenize

Frame = NDArray[np.uint8]
Masks = NDArray[np.bool_]


class ResearchCode:
    """The network in PyTorch without reuse between frames: the query and both frames are encoded on every frame.

    The flow starts warm, as in the runtime, so that masks can be compared.
    """

    def __init__(self, *, checkpoint: Checkpoint, query: str, size: tuple[int, int], compiled: bool) -> None:
        model = checkpoint.model.eval()
        wrap: Callable[[Any], Any] = torch.compile if compiled else lambda part: part
        self._network, self._encode_text = wrap(model), wrap(model.encode_text)
        self._flow = wrap(model.flow) if model.flow is not None else None
        self._scale = model.flow.scale if model.flow is not None else 1
        self._tokenizer, self._max_tokens = checkpoint.tokenizer, model.config.text.max_tokens
        self._query, self._size = query, size
        self._previous: Tensor | None = None
        self._coords: Tensor | None = None

    @torch.inference_mode()
    def step(self, frame: Frame) -> Masks:
        """uint8 [H,W,3] BGR -> bool [1,H,W]."""
        image = _tensor(frame, self._size)
        ids, mask = tokenize(self._tokenizer, [self._query], self._max_tokens)
        language = tuple(vector.unsqueeze(0) for vector in self._encode_text(ids, mask))
        flow = None
        if self._flow is not None:
            height, width = self._size
            flow = image.new_zeros(1, 2, height // self._scale, width // self._scale)
            if self._previous is not None:
                flow, self._coords = self._flow(image, self._previous, coords=self._coords)
            self._previous = image
        logits = self._network(image, flow, language)[0]
        return _masks(logits[:, 1] - logits[:, 0], frame)


class RefVosShape(nn.Module):
    """A network of RefVOS' shape: DeepLabv3 (ResNet-101) whose features are multiplied by BERT's sentence vector.

    Its weights are random: only its time is of interest.
    """

    def __init__(self, *, size: tuple[int, int], tokens: int = 20) -> None:
        super().__init__()
        torch.manual_seed(0)
        deeplab = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=2)
        self.backbone = deeplab.backbone
        *features, self.last = deeplab.classifier
        self.features = nn.Sequential(*features)
        self.bert = BertModel(BertConfig(), add_pooling_layer=False)
        self.project = nn.Linear(768, 256)
        self.size = size
        self.tokens = torch.arange(1000, 1000 + tokens)[None]
        self.eval()

    @torch.inference_mode()
    def step(self, frame: Frame) -> Masks:
        """uint8 [H,W,3] BGR -> bool [1,H,W]."""
        image = _tensor(frame, self.size) / 255
        sentence = self.bert(input_ids=self.tokens).last_hidden_state[:, 0]
        visual = self.features(self.backbone(image)["out"])
        logits = self.last(visual * self.project(sentence)[:, :, None, None])[0]
        return _masks((logits[1] - logits[0])[None], frame)


class OpenCvFlow:
    """DIS (medium preset) or Farneback flow (OpenCV's example) between successive frames, at the resolution of the flow
    graphs.
    """

    def __init__(self, *, method: str, size: tuple[int, int]) -> None:
        self._size = size
        self._previous: Frame | None = None
        # Any: OpenCV's stubs do not allow None for the initial flow.
        self._estimate: Callable[..., Any] = cv2.calcOpticalFlowFarneback
        self._rest: tuple[Any, ...] = (None, 0.5, 3, 15, 3, 5, 1.2, 0)
        if method == "DIS":
            self._estimate = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc
            self._rest = (None,)

    def step(self, frame: Frame) -> tuple[None, float | None]:
        """uint8 [H,W,3] BGR -> (None, seconds of resizing, conversion to grey and flow; None on the first frame)."""
        begin = time.perf_counter()
        small = cv2.resize(frame, self._size[::-1], interpolation=cv2.INTER_AREA)
        grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)
        previous, self._previous = self._previous, grey
        if previous is None:
            return None, None
        self._estimate(grey, previous, *self._rest)
        return None, time.perf_counter() - begin


def _tensor(frame: Frame, size: tuple[int, int]) -> Tensor:
    """uint8 [H,W,3] BGR -> float32 [1,3,h,w] RGB, 0 to 255."""
    resized = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(np.ascontiguousarray(resized[:, :, ::-1])).permute(2, 0, 1)[None].float()


def _masks(margins: Tensor, frame: Frame) -> Masks:
    """Margins float32 [Q,h,w] -> masks bool [Q,H,W] at the frame's size."""
    up = F.interpolate(margins[None], size=frame.shape[:2], mode="bilinear", align_corners=False)[0]
    masks: Masks = (up > 0).numpy()
    return masks
