"""An untrained network from official weights of its parts, for export and benchmarks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

from rvos_edge.synthetic.camera import SyntheticCamera
from rvos_edge.trainer.checkpoint import Checkpoint
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import model_config
from rvos_edge.trainer.model.weights import InitialWeights, initialise


def assemble(preset: str, weights: InitialWeights) -> Checkpoint:
    """An untrained network of a preset: official weights of its parts, the rest random.

    Raises:
        UserError: The preset is unknown, or a file of weights is missing or of another network.
    """
    torch.manual_seed(0)
    model = HINet(config=model_config(preset)).eval()
    tokenizer = initialise(model, weights, random_text=True)
    _calibrate_norms(model, keep_backbone=weights.backbone is not None)
    return Checkpoint(model, tokenizer, {"name": f"{preset}, not trained", "trained": False})


@torch.no_grad()
def _calibrate_norms(model: HINet, *, keep_backbone: bool) -> None:
    """Set the batch statistics of random layers from synthetic frames, so that activations stay in float16's range."""
    parts = [model.aspp, model.vision, model.interaction, model.motion, model.decoder]
    norms = [
        layer
        for part in (*parts, None if keep_backbone else model.backbone)
        if part is not None
        for layer in part.modules()
        if isinstance(layer, nn.BatchNorm2d)
    ]
    for norm in norms:
        norm.momentum = 1.0  # the statistics of this batch alone
        norm.train()
    for block in model.backbone.modules() if not keep_backbone else ():
        if isinstance(block, Bottleneck):
            # Trained residual branches are small beside their shortcut; random ones of full size amplify noise.
            block.bn3.weight.fill_(0.2)
    # Large enough for statistics, small enough to take a second.
    unit = math.lcm(32, model.size_multiple)
    size = (6 * unit, 8 * unit)
    frames = [frame.image for frame in itertools.islice(SyntheticCamera(seed=0, size=size), 2)]
    image = torch.from_numpy(np.stack(frames)[..., ::-1].copy()).permute(0, 3, 1, 2)
    scale = model.flow.scale if model.flow is not None else 1
    # With motion: the statistics of a layer without input variance would amplify any later motion.
    flow = 2 * torch.randn(2, 2, size[0] // scale, size[1] // scale)
    model(image, flow, tuple(1 + torch.randn(2, 1, channels) for channels in model.language_channels))
    for norm in norms:
        norm.momentum = 0.1
        norm.eval()
