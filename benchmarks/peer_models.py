"""What the runtime is compared with: the same network as research code runs it, the RefVOS shape, OpenCV's flow."""

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
    """The network in PyTorch as papers' code runs it: per frame the sentence is encoded, and both frames by RAFT.

    The flow starts warm, as in the runtime, so that both compute the same thing and their masks can be compared.
    """

    def __init__(self, *, checkpoint: Checkpoint, query: str, size: tuple[int, int], compiled: bool) -> None:
        """Prepare.

        Args:
            checkpoint: The network; its weights are shared and not changed.
            query: The sentence.
            size: Height and width of the network's input.
            compiled: Run the three parts through ``torch.compile``; the first frames then take minutes.
        """
        model = checkpoint.model.eval()
        wrap: Callable[[Any], Any] = torch.compile if compiled else lambda part: part
        self._network, self._speak = wrap(model), wrap(model.speak)
        self._flow = wrap(model.flow) if model.flow is not None else None
        self._scale = model.flow.scale if model.flow is not None else 1
        self._tokenizer, self._max_tokens = checkpoint.tokenizer, model.config.text.max_tokens
        self._query, self._size = query, size
        self._before: Tensor | None = None
        self._coords: Tensor | None = None

    @torch.inference_mode()
    def step(self, frame: Frame) -> Masks:
        """uint8 [H,W,3] BGR -> bool [1,H,W]."""
        image = _tensor(frame, self._size)
        ids, mask = tokenize(self._tokenizer, [self._query], self._max_tokens)
        language = tuple(vector.unsqueeze(0) for vector in self._speak(ids, mask))
        flow = None
        if self._flow is not None:
            height, width = self._size
            flow = image.new_zeros(1, 2, height // self._scale, width // self._scale)
            if self._before is not None:
                flow, self._coords = self._flow(image, self._before, coords=self._coords)
            self._before = image
        logits = self._network(image, flow, language)[0]
        return _masks(logits[:, 1] - logits[:, 0], frame)


class RefVosShape(nn.Module):
    """The shape of RefVOS: DeepLabv3 (ResNet-101) whose features are multiplied by BERT's sentence vector.

    Random weights: its masks mean nothing, its time is that of trained ones.
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
    """DIS or Farneback flow between successive frames, at the size at which the flow graphs work."""

    def __init__(self, *, method: str, size: tuple[int, int]) -> None:
        """Prepare.

        Args:
            method: "DIS" (its medium preset) or "Farneback" (OpenCV's example values).
            size: Height and width of the flow.
        """
        self._size = size
        self._before: Frame | None = None
        # OpenCV's stubs know no flow of None, which is how a new one is asked for.
        self._estimate: Callable[..., Any] = cv2.calcOpticalFlowFarneback
        self._rest: tuple[Any, ...] = (None, 0.5, 3, 15, 3, 5, 1.2, 0)
        if method == "DIS":
            self._estimate = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc
            self._rest = (None,)

    def step(self, frame: Frame) -> tuple[None, float | None]:
        """uint8 [H,W,3] BGR -> the seconds that the flow took, resizing and greying included; None on the first."""
        begin = time.perf_counter()
        small = cv2.resize(frame, self._size[::-1], interpolation=cv2.INTER_AREA)
        grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)
        before, self._before = self._before, grey
        if before is None:
            return None, None
        self._estimate(grey, before, *self._rest)
        return None, time.perf_counter() - begin


def _tensor(frame: Frame, size: tuple[int, int]) -> Tensor:
    """uint8 [H,W,3] BGR -> float32 [1,3,h,w] RGB, 0 to 255."""
    resized = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(np.ascontiguousarray(resized[:, :, ::-1])).permute(2, 0, 1)[None].float()


def _masks(margins: Tensor, frame: Frame) -> Masks:
    """float32 [Q,h,w] -> bool [Q,H,W] at the frame's size."""
    up = F.interpolate(margins[None], size=frame.shape[:2], mode="bilinear", align_corners=False)[0]
    masks: Masks = (up > 0).numpy()
    return masks
