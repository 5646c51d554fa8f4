"""Gradients of depthwise convolutions: those of ``conv2d``, whatever the stride, padding and dilation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rvos_edge.trainer.depthwise import DepthwiseConv, speed_up_depthwise


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 4, 2), (1, 1, 1), (1, 0, 1), (2, 0, 1), (1, 9, 2)])
def test_its_gradients_are_those_of_autograd(stride: int, padding: int, dilation: int) -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 3, 9, 12, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(3, 1, 5, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    shape = ((stride,) * 2, (padding,) * 2, (dilation,) * 2)
    answers = DepthwiseConv.apply(image, weight, *shape), F.conv2d(image, weight, None, *shape, 3)
    torch.testing.assert_close(*answers)
    towards = torch.randn(answers[0].shape, dtype=torch.float64, generator=generator)
    mine, reference = (torch.autograd.grad(answer, (image, weight), towards) for answer in answers)
    torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_network_answers_and_learns_the_same(bfloat16: bool) -> None:
    def gradients(*, fast: bool) -> list[torch.Tensor]:
        torch.manual_seed(2)
        network = nn.Sequential(
            nn.Conv2d(3, 16, 1),
            nn.Conv2d(16, 16, 5, padding=4, dilation=2, groups=16, bias=False),
            nn.Conv2d(16, 16, 3, stride=2, groups=16),
            nn.Conv2d(16, 16, 3, padding="same", groups=16),
        )
        if fast:
            speed_up_depthwise(network)
        with torch.autocast("cpu", enabled=bfloat16):
            answer = network(torch.randn(2, 3, 24, 32))
        answer.float().square().mean().backward()
        return [answer, *(parameter.grad for parameter in network.parameters())]

    close = {"rtol": 0.05, "atol": 2e-3} if bfloat16 else {"rtol": 1e-4, "atol": 1e-6}
    for mine, reference in zip(gradients(fast=True), gradients(fast=False), strict=True):
        torch.testing.assert_close(mine, reference, **close)


def test_only_depthwise_convolutions_are_replaced() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(1, 1, 3))
    speed_up_depthwise(network)
    names = [type(layer(torch.randn(1, layer.in_channels, 8, 8)).grad_fn).__name__ for layer in network]
    assert [name.startswith("DepthwiseConv") or "Add" in name for name in names] == [False, True, False]
