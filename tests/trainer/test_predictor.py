"""The PyTorch segmenter equals the network called by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rvos_edge.errors import UserError
from rvos_edge.trainer.checkpoint import Checkpoint
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import small_tokenizer, tokenize
from rvos_edge.trainer.model.presets import model_config
from rvos_edge.trainer.predictor import TorchSegmenter

_QUERIES = ["a dog", "the red ball on the left"]


def _segmenter(**changes: object) -> TorchSegmenter:
    torch.manual_seed(0)
    segmenter = TorchSegmenter(Checkpoint(HINet(config=model_config("test", **changes)), small_tokenizer(512)))
    segmenter.set_queries(_QUERIES)
    return segmenter


def _frames(count: int) -> list[NDArray[np.uint8]]:
    """BGR frames of another size than the network's."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    scene = np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), np.uint8)
    return [np.roll(scene, 4 * index, axis=1) for index in range(count)]


def _image(frame: NDArray[np.uint8]) -> Tensor:
    rgb = cv2.cvtColor(cv2.resize(frame, (96, 64)), cv2.COLOR_BGR2RGB)
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float()


def _by_hand(segmenter: TorchSegmenter, frame: NDArray[np.uint8], flow: Tensor | None) -> Tensor:
    model = segmenter.model
    language = model.encode_text(*tokenize(segmenter.tokenizer, _QUERIES, 32))
    logits = model(_image(frame), flow, tuple(level[None] for level in language))[0]
    return logits[:, 1] - logits[:, 0]


@torch.inference_mode()
def test_margins_and_masks_equal_a_forward_by_hand() -> None:
    segmenter = _segmenter()
    network = segmenter.model.flow
    assert network is not None
    frames = _frames(3)
    coords = None
    for index, frame in enumerate(frames):
        flow = torch.zeros(1, 2, 64, 96)
        if index > 0:
            flow, coords = network(_image(frame), _image(frames[index - 1]), coords=coords)
            assert flow.abs().max() > 0
        margin = _by_hand(segmenter, frame, flow)
        assert torch.allclose(segmenter.margins(frame), margin, atol=1e-4)
    segmenter.reset()
    masks = segmenter.masks(frames[0])
    margin = _by_hand(segmenter, frames[0], torch.zeros(1, 2, 64, 96))
    expected = F.interpolate(margin[None], size=(60, 80), mode="bilinear", align_corners=False)[0] > 0
    assert masks.shape == (2, 60, 80)
    assert masks.dtype == np.bool_
    assert np.array_equal(masks, expected.numpy())


def test_the_second_frame_uses_flow_and_reset_forgets_it() -> None:
    segmenter = _segmenter()
    before, now = _frames(2)
    still = segmenter.margins(now)
    segmenter.reset()
    segmenter.margins(before)
    moving = segmenter.margins(now)
    assert not torch.allclose(still, moving, atol=1e-6)
    segmenter.reset()
    assert torch.equal(segmenter.margins(now), still)


def test_the_static_model_needs_no_past() -> None:
    segmenter = _segmenter(flow="none")
    before, now = _frames(2)
    first = segmenter.margins(now)
    segmenter.margins(before)
    assert torch.equal(segmenter.margins(now), first)


def test_new_queries_keep_the_video() -> None:
    segmenter, other = _segmenter(), _segmenter()
    before, now = _frames(2)
    for each in (segmenter, other):
        each.margins(before)
    segmenter.set_queries(["a dog"])
    assert torch.allclose(segmenter.margins(now)[0], other.margins(now)[0], atol=1e-4)


def _sized(size: object) -> TorchSegmenter:
    torch.manual_seed(0)
    checkpoint = Checkpoint(HINet(config=model_config("test")), small_tokenizer(512))
    segmenter = TorchSegmenter(checkpoint, size=size)  # type: ignore[arg-type]
    segmenter.set_queries(_QUERIES)
    return segmenter


def test_a_frame_is_seen_at_its_original_size() -> None:
    """Rounded up to what the network takes; a new size starts the flow anew."""
    original = _sized("original")
    multiple, least = original.model.size_multiple, original.model.least_size
    height, width = (max(least, -(-extent // multiple) * multiple) for extent in (60, 80))
    fixed = _sized((height, width))
    for frame in _frames(3):
        torch.testing.assert_close(original.margins(frame), fixed.margins(frame))
    assert original.size == (height, width)
    larger = cv2.resize(_frames(1)[0], (3 * width - 1, 2 * height))
    assert original.masks(np.asarray(larger, np.uint8)).shape == (2, 2 * height, 3 * width - 1)
    assert original.size == (2 * height, 3 * width)
    assert original.flow is not None
    assert not original.flow.any(), "the first frame of its size"


def test_a_size_that_the_network_cannot_take_is_refused() -> None:
    with pytest.raises(UserError, match=r"--size 63x96: this network needs multiples of \d+ from \d+ up, for example"):
        _sized((63, 96))


def test_the_mask_of_an_absent_query_is_empty_unless_asked_for() -> None:
    frames, drawn = _frames(3), {}
    for least in (0.2, 0.0):
        segmenter = _segmenter(presence=True)
        assert segmenter.model.presence is not None
        torch.nn.init.constant_(segmenter.model.presence.decide[-1].bias, -20)
        segmenter.model.decoder.head[-1].bias.data[1] += 5  # masks everywhere
        asking = TorchSegmenter(Checkpoint(segmenter.model, segmenter.tokenizer), min_presence=least)
        asking.set_queries(_QUERIES)
        drawn[least] = np.stack([asking.masks(frame) for frame in frames])
        assert asking.presence is not None
        assert asking.presence.max() < 0.01
    assert drawn[0.0].any()
    assert not drawn[0.2].any()


def test_no_query_is_refused() -> None:
    segmenter = TorchSegmenter(Checkpoint(HINet(config=model_config("test")), small_tokenizer(512)))
    with pytest.raises(UserError, match="call set_queries before"):
        segmenter.masks(_frames(1)[0])
    with pytest.raises(UserError, match="at least one sentence"):
        segmenter.set_queries([])
