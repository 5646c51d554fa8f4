"""Restoring a checkpoint from a bundle, for further training, averaging or another export.

Initialisers of the graphs bear the names of the network's weights. The export is undone: narrow storage is widened,
RAFT's gates are split, and batch norms that were folded into convolutions are separated again, with statistics measured
on data. In evaluation mode the network equals the graphs; in training its norms start near the statistics of real
batches.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from rich.console import Console
from torch import Tensor, nn

from rvos_edge.bundle import Bundle
from rvos_edge.errors import UserError
from rvos_edge.export.flow_update import split_update
from rvos_edge.export.graphs import build_graphs
from rvos_edge.export.weights import QUANTISED, widen_weights
from rvos_edge.manifest import Manifest
from rvos_edge.outputs import check_outputs
from rvos_edge.parity.record import Arrays, load_reference
from rvos_edge.parity.verify import compare, tolerance
from rvos_edge.trainer.card import card_facts
from rvos_edge.trainer.checkpoint import Checkpoint, save_checkpoint
from rvos_edge.trainer.config import TrainConfig
from rvos_edge.trainer.data.loader import batches
from rvos_edge.trainer.flow_extraction import prepare_data
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import load_tokenizer, tokenize
from rvos_edge.trainer.model.presets import ModelConfig, model_config

_BATCHES = 4
"""Number of batches of the norms' statistics, about thirty frames: every channel still has thousands of values."""

_UPDATE = "update."
_SHARE = "share."


def restore_checkpoint(
    path: Path, output: Path, config: TrainConfig | None = None, *, console: Console | None = None
) -> Path:
    """Write a checkpoint of a bundle's network.

    The weights are those of the bundle, with its rounding (float16, int8). Folded batch norms get the statistics of
    ``config``'s batches, and each filter before them is scaled to a root mean square of 1/sqrt(fan in). The scale does
    not affect the network's output, but it affects the meaning of a learning rate.

    Args:
        config: Run whose data the statistics are measured on, best the one that follows; synthetic scenes by default.

    Raises:
        UserError: The bundle is damaged, its network is not that of its preset and card, or the restored network does
            not reproduce the bundle's reference.
    """
    console = console or Console(stderr=True)
    check_outputs([output], [path])
    bundle = Bundle.open(path)
    card = card_facts(path)
    model = HINet(config=_config(bundle.manifest, card)).eval()
    folded = _load(model, _weights(bundle, model), path)
    restored = Checkpoint(model, load_tokenizer(bundle.tokenizer_path), card)
    _unfold(folded, _statistics(restored, list(folded.values()), config, console))
    _check(restored, bundle)
    save_checkpoint(output, restored)
    console.print(_approximations(bundle.manifest, len(folded), config), soft_wrap=True, highlight=False)
    return output


def _approximations(manifest: Manifest, norms: int, config: TrainConfig | None) -> str:
    """Differences between a restored checkpoint and the one that was exported, in one sentence each."""
    stored: dict[str, list[str]] = {}
    for name, graph in manifest.graphs.items():
        stored.setdefault(graph.weights, []).append(name)
    rounded = "; ".join(f"{kind} in {', '.join(names)}" for kind, names in stored.items() if kind != "float32")
    frames = "synthetic scenes" if config is None else f"the data of {config.name}"
    return (
        f"Approximate in this checkpoint: weights are rounded as the bundle stores them ({rounded or 'not at all'}); "
        f"{norms} batch norms were folded into convolutions and have statistics of {_BATCHES} batches of {frames}. The "
        "optimiser's state and the moving average are not in a bundle."
    )


def _config(manifest: Manifest, card: dict[str, Any]) -> ModelConfig:
    """The network's configuration; a bundle of an untrained network has no training configuration in its card."""
    changes = dict(card.get("config", {}).get("model", {}))
    for key in ("preset", "naming", "sureness", "discriminant"):  # the last three are parts that are no more
        changes.pop(key, None)
    network = manifest.network
    facts = {name: network[name] for name in ("fusion", "flow")}
    # Keys that older bundles lack.
    added: dict[str, str | int] = {"boundary": "none", "presence": False, "attention_heads": 0}
    facts |= {name: network.get(name, absent) for name, absent in added.items()}
    return model_config(manifest.preset, **{"size": manifest.size, **changes, **facts})


def _weights(bundle: Bundle, model: HINet) -> dict[str, Tensor]:
    """Weights of all graphs by their names in the network; a folded norm is ``weight_bias`` of its convolution."""
    found: dict[str, NDArray[np.float32]] = {}
    for name in bundle.manifest.graphs:
        found |= _named(onnx.load(str(bundle.graph_path(name))))
    tensors = {name: torch.from_numpy(array.copy()) for name, array in found.items()}
    weights = {name.partition("model.")[2]: tensor for name, tensor in tensors.items() if "model." in name}
    if model.flow is not None:
        pieces = {name: tensor for name, tensor in tensors.items() if name.startswith((_UPDATE, _SHARE))}
        block = split_update(model.flow.raft, pieces)
        weights |= {f"flow.raft.update_block.{name}": tensor for name, tensor in block.items()}
    return weights


def _named(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """All weights of a graph in float32 by name; those of linear layers, which the exporter transposes and leaves
    unnamed, after their biases.
    """
    widen_weights(model)
    values = {
        tensor.name.removesuffix(QUANTISED): numpy_helper.to_array(tensor).astype(np.float32)
        for tensor in model.graph.initializer
    }
    products = {node.output[0]: node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    for node in model.graph.node:
        if node.op_type != "Add":
            continue
        for product, bias in itertools.permutations(node.input):
            weight = products.get(product)
            if bias.endswith(".bias") and weight in values:
                values[f"{bias.removesuffix('bias')}weight"] = values[weight].T
    return values


def _load(model: HINet, weights: dict[str, Tensor], path: Path) -> dict[nn.Conv2d, nn.BatchNorm2d]:
    """Load the weights and return the folded norms by their convolutions; such a norm only adds the bias."""
    modules = {module: name for name, module in model.named_modules()}
    folded = {}
    state = {name: tensor for name, tensor in model.state_dict().items() if name.endswith("num_batches_tracked")}
    for conv, norm in _followed(model).items():
        name, own = modules[conv], modules[norm]
        if f"{own}.weight" in weights:
            continue
        folded[conv] = norm
        bias = weights.pop(f"{name}.weight_bias", weights.get(f"{name}.bias"))
        if bias is None:
            continue  # reported below
        if conv.bias is not None:
            weights[f"{name}.bias"] = torch.zeros_like(bias)
        ones, zeros = torch.ones_like(bias), torch.zeros_like(bias)
        scale = torch.sqrt(ones + norm.eps)
        restored = {"weight": scale, "bias": bias, "running_mean": zeros, "running_var": ones}
        weights |= {f"{own}.{key}": tensor for key, tensor in restored.items()}
    for name, tensor in model.state_dict().items():
        if name in state:
            continue
        if name not in weights:
            raise UserError(
                f"{path} cannot be restored: none of its graphs holds '{name}' of the network (weights that are equal "
                "are merged at export); train from a checkpoint."
            )
        if weights[name].shape != tensor.shape:
            raise UserError(
                f"{path} cannot be restored: '{name}' is {list(weights[name].shape)} in its graphs and "
                f"{list(tensor.shape)} in preset '{model.config.preset}'; its card.json may be missing or another's."
            )
        state[name] = weights[name]
    model.load_state_dict(state)
    return folded


@torch.no_grad()
def _followed(model: HINet) -> dict[nn.Conv2d, nn.BatchNorm2d]:
    """Batch norms by the convolution whose output they read."""
    made: list[tuple[Tensor, nn.Conv2d]] = []
    found: dict[nn.Conv2d, nn.BatchNorm2d] = {}

    def after(conv: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        made.append((output, conv))

    def before(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        found.update({conv: norm for output, conv in made if output is inputs[0]})

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(before))
    image = torch.zeros(1, 3, model.least_size, model.least_size)
    flow = None
    if model.flow is not None:
        flow, _ = model.flow(image, image)
    model(image, flow, tuple(torch.ones(1, 1, width) for width in model.language_channels))
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
def _statistics(
    restored: Checkpoint, norms: list[nn.BatchNorm2d], config: TrainConfig | None, console: Console
) -> dict[nn.BatchNorm2d, tuple[Tensor, Tensor]]:
    """Mean and variance of the norms' inputs over the first batches of a run; norms without input are missing."""
    model = restored.model
    if config is None:
        data = {"sources": [{"kind": "synthetic", "share": 1.0}]}
        config = TrainConfig.model_validate({"name": "scenes", "model": {}, "data": data, "iterations": _BATCHES})
    none = torch.zeros(1, dtype=torch.float64)
    sums: dict[nn.BatchNorm2d, tuple[Tensor, Tensor, int]] = {}

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        values = inputs[0].double()
        one, two, count = sums.get(norm, (none, none, 0))
        axes = (0, 2, 3)
        sums[norm] = (one + values.sum(axes), two + values.square().sum(axes), count + values[:, 0].numel())

    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    mixture = prepare_data(config.data, model, config.seed, console=console)
    for batch in batches(mixture, config, start=0, stop=_BATCHES):
        said = [text for row in batch.expressions for text in row[: config.data.queries]]
        vectors = model.encode_text(*tokenize(restored.tokenizer, said, model.config.text.max_tokens))
        language = tuple(level.view(len(batch.expressions), -1, level.shape[1]) for level in vectors)
        moved = torch.rand(len(batch.flow), 1, 1, 1) >= config.flow_dropout
        camera = None if batch.camera is None else batch.camera * moved[:, :, 0, 0]
        model.answer(*model.condition(model.encode_image(batch.image), batch.flow * moved, camera), language)
    for hook in hooks:
        hook.remove()
    return {
        norm: ((one / count).float(), (two / count - (one / count).square()).clamp(min=0).float())
        for norm, (one, two, count) in sums.items()
    }


@torch.no_grad()
def _unfold(folded: dict[nn.Conv2d, nn.BatchNorm2d], statistics: dict[nn.BatchNorm2d, tuple[Tensor, Tensor]]) -> None:
    """Set the norms' statistics, and adapt weights and filters so that the output is unchanged."""
    for conv, norm in folded.items():
        if norm not in statistics:
            continue  # RAFT's norms, which are not trained
        mean, variance = statistics[norm]
        size = conv.weight.square().mean(dim=(1, 2, 3)).sqrt()
        factor = torch.where(size > 0, conv.weight[0].numel() ** -0.5 / size, torch.ones_like(size))
        conv.weight *= factor.view(-1, 1, 1, 1)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.bias.add_(mean)
        norm.running_mean.copy_(mean * factor)
        norm.running_var.copy_(variance * factor.square())
        norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps) / factor)


@torch.no_grad()
def _check(restored: Checkpoint, bundle: Bundle) -> None:
    """Compare every part of the restored network with the bundle's reference.

    Raises:
        UserError: A part is out of tolerance.
    """
    reference = load_reference(bundle)
    model, flow = restored.model, bundle.manifest.flow
    trained_at = model.flow.scale if model.flow is not None else None
    if flow is not None:
        model.set_flow_scale(flow.scale)
    for graph in build_graphs(model, fuse="vision" in bundle.manifest.graphs):
        given = [torch.from_numpy(np.array(reference.inputs[graph.name][name])) for name in graph.inputs]
        wide = [tensor.float() if tensor.is_floating_point() else tensor for tensor in given]
        outputs: Arrays = {
            name: tensor.numpy() for name, tensor in zip(graph.outputs, graph.module(*wide), strict=True)
        }
        gap, limit = (
            compare(outputs, reference.outputs[graph.name]).relative_l2,
            tolerance(bundle.manifest.graphs[graph.name]),
        )
        if not gap <= limit:
            raise UserError(
                f"{bundle.path} cannot be restored: '{graph.name}' differs from what it was exported from by {gap:.2g} "
                f"(relative L2), more than {limit:.2g}; train from a checkpoint."
            )
    if trained_at is not None:
        model.set_flow_scale(trained_at)
