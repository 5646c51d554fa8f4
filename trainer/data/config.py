"""Which data a run trains on: a list of sources with shares, read from the training configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console
from rich.progress import track

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.coco import CocoDataset
from rvos_edge.trainer.data.compose import ComposedDataset
from rvos_edge.trainer.data.davis import DavisDataset
from rvos_edge.trainer.data.flow_store import FlowKey, FlowStore
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.data.sample import Drawable
from rvos_edge.trainer.data.synthetic import SyntheticDataset
from rvos_edge.trainer.model.flow import FlowNetwork
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import StrictModel

_ENDLESS = 1 << 40
"""Length of the mixture: the loop decides how many samples are drawn."""


class DavisSource(StrictModel):
    """DAVIS videos with their expressions and their stored flow."""

    kind: Literal["davis"]
    root: str
    expressions: str | None = None
    videos: Literal["train", "val"] | list[str] = "train"
    share: float = Field(gt=0)


class CocoSource(StrictModel):
    """COCO images as static clips with made-up motion."""

    kind: Literal["coco"]
    root: str
    split: Literal["all", "train"] = "train"
    """``train`` leaves out the pictures that the swap test asks about."""
    share: float = Field(gt=0)


class ComposedSource(StrictModel):
    """COCO objects pasted into COCO and DAVIS frames, several candidates each."""

    kind: Literal["composed"]
    coco: str
    split: Literal["all", "train"] = "train"
    """Which COCO pictures lend backgrounds and objects."""
    davis: str | None = None
    expressions: str | None = None
    davis_backgrounds: float = Field(default=0.5, ge=0, le=1)
    share: float = Field(gt=0)


class SyntheticSource(StrictModel):
    """Scenes of the synthetic camera; seeds below 1000 are held out."""

    kind: Literal["synthetic"]
    share: float = Field(gt=0)


Source = Annotated[DavisSource | CocoSource | ComposedSource | SyntheticSource, Field(discriminator="kind")]


class DataConfig(StrictModel):
    """The mixture a run draws from."""

    sources: list[Source] = Field(min_length=1)
    size: tuple[int, int] | None = None
    """Height and width of the samples; the network's by default."""
    queries: int = Field(default=4, ge=1)
    """(expression, mask) pairs per sample: vision runs once for all of them."""
    absent_share: float = Field(default=0.25, ge=0, lt=1)
    """Share of pairs whose expression names nothing in the frame."""
    view: Literal["edge", "paper"] = "edge"
    """Augmentation: a random window with changed colours and quality, or the paper's resize to the height of ``size``
    with a random crop of its width."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a mirrored view, with left and right exchanged in its sentences."""
    flow: str = "runs/flow"
    """Where the flow of the videos is stored."""
    licences: list[str] = Field(default_factory=list)
    """Licences of the data, for the model card."""


class NamedMixture(MixtureDataset):
    """The mixture with the names of its parts, for the card.

    Attributes:
        shares: (name, share) of every source.
    """

    shares: tuple[tuple[str, float], ...] = ()


def build_mixture(config: DataConfig, model: HINet, seed: int, *, console: Console) -> NamedMixture:
    """Open the data sets; the flow of the videos is computed first where the store lacks it.

    Raises:
        UserError: A folder or file is missing.
    """
    size = config.size or model.config.size
    scale = model.flow.scale if model.flow is not None else 1
    flow_size = (size[0] // scale, size[1] // scale)
    children: list[tuple[Drawable, float]] = []
    shares: list[tuple[str, float]] = []
    sentences: list[str] = []
    # Videos first: their sentences are the hardest absent ones for still images.
    for source in sorted(config.sources, key=lambda source: source.kind != "davis"):
        child: Drawable
        if isinstance(source, DavisSource):
            child = davis = _davis(
                source.root, source.expressions, source.videos, config, model, size, flow_size, console
            )
            sentences += [sentence for video in davis.videos for sentence in davis.sentences(video)]
        elif isinstance(source, CocoSource):
            child = CocoDataset(source.root, size=size, flow_size=flow_size, distractors=sentences, split=source.split)
        elif isinstance(source, ComposedSource):
            coco = CocoDataset(source.coco, size=size, flow_size=flow_size, split=source.split)
            clips = None
            if source.davis is not None:
                clips = _davis(source.davis, source.expressions, "train", config, model, size, flow_size, console)
            child = ComposedDataset(coco=coco, davis=clips, davis_backgrounds=source.davis_backgrounds)
        else:
            child = SyntheticDataset(size=size, flow_size=flow_size)
        children.append((child, source.share))
        shares.append((source.kind, source.share))
    mixture = NamedMixture(
        children, length=_ENDLESS, queries=config.queries, seed=seed, absent_share=config.absent_share
    )
    total = sum(share for _, share in shares)
    mixture.shares = tuple((name, round(share / total, 4)) for name, share in shares)
    return mixture


def build_flow(davis: DavisDataset, store: FlowStore, network: FlowNetwork, *, console: Console) -> None:
    """Store the flow of every video, as the runtime would compute it; what is there is kept."""

    def estimate(frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        return network.stream(frames)

    paths = {video: davis.image_paths(video) for video in davis.videos}
    missing = [video for video in davis.videos if not store.has(video, paths[video])]
    for video in track(missing, description="flow", console=console, disable=not missing):
        store.build(video, paths[video], estimate, rebuild=True)


def flow_key(network: FlowNetwork, size: tuple[int, int]) -> FlowKey:
    """What a stored flow depends on besides its frames."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return FlowKey(checkpoint=digest.hexdigest(), size=size, scale=network.scale, iterations=network.iterations)


def _davis(
    root: str,
    expressions: str | None,
    videos: str | list[str],
    config: DataConfig,
    model: HINet,
    size: tuple[int, int],
    flow_size: tuple[int, int],
    console: Console,
) -> DavisDataset:
    if not Path(root).is_dir():
        raise UserError(
            f"The DAVIS folder {root} does not exist; set its root in data.sources to where you unpacked it."
        )
    davis = DavisDataset(root, size=size, flow_size=flow_size, expressions=expressions, videos=videos)
    if model.flow is None:
        return davis
    # The flow is that of the network's own input size, whatever the size trained at: it is what the runtime sees.
    key = flow_key(model.flow, model.config.size)
    # One folder per key: presets with other settings do not overwrite each other's flow.
    folder = hashlib.sha256(repr(key).encode()).hexdigest()[:12]
    store = FlowStore(Path(config.flow) / folder, key=key)
    build_flow(davis, store, model.flow, console=console)
    return DavisDataset(root, size=size, flow_size=flow_size, expressions=expressions, videos=videos, flow=store)
