"""Flow extraction: the optical flow of all training videos, computed once and stored, or anew on every use."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rvos_edge.errors import UserError, about
from rvos_edge.progress import follow
from rvos_edge.trainer.data.config import DataConfig, FlowFolder, open_mixture
from rvos_edge.trainer.data.flow_cache import STORES, FlowCache, FlowKey
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.data.readers.base import AnnotatedClips, image_paths
from rvos_edge.trainer.data.readers.images import DamagedFileError
from rvos_edge.trainer.distributed.ranks import rank, together, world
from rvos_edge.trainer.model.flow import FlowNetwork
from rvos_edge.trainer.model.hinet import HINet


def prepare_data(config: DataConfig, model: HINet, seed: int, *, console: Console) -> MixtureDataset:
    """Extract the flow that is missing, each rank its part, then open the mixture of a run.

    Raises:
        UserError: A folder or file is missing or damaged, or the disk is too small for the flow.
    """
    flow: FlowFolder | None = None
    if model.flow is not None and config.flow_store == "none":
        flow = FlowFolder(Path(config.flow), flow_key(model.flow, model.config.size), "none", model.flow)
    elif model.flow is not None:
        flow = extract_flow(config, model.flow, model.config.size, console=console)
    return together(lambda: open_mixture(config, size=model.config.size, flow=flow, seed=seed))


def extract_flow(config: DataConfig, network: FlowNetwork, size: tuple[int, int], *, console: Console) -> FlowFolder:
    """Store the flow of all videos of a run as the runtime would compute it, at the network's input size whatever that
    of the samples; existing flow is kept.

    Raises:
        UserError: A folder or file is missing or damaged, or the disk is too small for the flow.
    """
    flow = FlowFolder(Path(config.flow), flow_key(network, size), config.flow_store)
    # All ranks look before any of them writes: they must share one list.
    missing = together(lambda: _missing(config, flow, network, console))
    own = missing[rank() :: world()]
    together(lambda: extract_clips(own, network, batch=config.flow_batch, console=console))
    return flow


def _missing(
    config: DataConfig, flow: FlowFolder, network: FlowNetwork, console: Console
) -> list[tuple[AnnotatedClips, FlowCache, str]]:
    """Videos without flow, whose number and size are said; those of about one length are neighbours."""
    found = []
    for index, source in enumerate(config.sources):
        with about(f"data.sources.{index}"):
            videos = source.videos_with_flow()
        if videos is not None:
            kind, clips = videos
            cache = flow.cache(kind)
            lacking = [video for video in clips.videos if not cache.has(video, image_paths(clips, video))]
            found += [(clips, cache, video) for video in lacking]
    if found:
        _announce(found, config, network, console)
    return sorted(found, key=lambda item: len(item[0].frames(item[2])))


def extract_clips(
    missing: Sequence[tuple[AnnotatedClips, FlowCache, str]], network: FlowNetwork, *, batch: int = 1, console: Console
) -> None:
    """Store the flow of videos, ``batch`` of them side by side.

    A damaged frame is replaced by the one before it, with a warning.
    """
    for start in follow(range(0, len(missing), batch), "flow", console):
        group = missing[start : start + batch]
        frames = [_resized_frames(clips, video, cache.key.size) for clips, cache, video in group]
        rows = [fields.astype(np.float16) for fields in network.stream(*frames)]
        for number, (clips, cache, video) in enumerate(group):
            files = image_paths(clips, video)
            cache.write(video, files, (fields[number] for fields in rows[: len(files)]))


def _announce(
    missing: Sequence[tuple[AnnotatedClips, FlowCache, str]], config: DataConfig, network: FlowNetwork, console: Console
) -> None:
    """Say how much flow there will be; raise `UserError` where the disk is too small for it."""
    count = sum(len(clips.frames(video)) for clips, _, video in missing)
    height, width = (extent // network.field_scale for extent in missing[0][1].key.size)
    sizes = {store: count * 2 * height * width * share / 1e9 for store, share in STORES.items()}
    folder = Path(config.flow).resolve()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free / 1e9
    others = ", ".join(f"{store} {size:.2f} GB" for store, size in sizes.items() if store != config.flow_store)
    need = sizes[config.flow_store]
    console.print(
        f"flow of {len(missing)} videos, {count} frames, is computed and stored in {config.flow}: {need:.2f} GB "
        f"({free:.0f} GB are free; data.flow_store: {others}, none 0 GB)",
        soft_wrap=True,
        highlight=False,
    )
    if need > free:
        raise UserError(
            f"The flow needs {need:.1f} GB and {there} has {free:.1f} GB free; set data.flow to another disk, or "
            f"data.flow_store to {', '.join(STORES)} or none."
        )


def flow_key(network: FlowNetwork, size: tuple[int, int]) -> FlowKey:
    """Weights and settings on which stored flow depends."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return FlowKey(checkpoint=digest.hexdigest(), size=size, scale=network.scale, iterations=network.iterations)


def _resized_frames(clips: AnnotatedClips, video: str, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    last = np.zeros((32, 32, 3), np.uint8)
    for index in range(len(clips.frames(video))):
        try:
            last = clips.image(video, index)
        except DamagedFileError as error:
            warnings.warn(f"{error}; its flow is that of a still camera", stacklevel=2)
        yield cast("NDArray[np.uint8]", cv2.resize(last, size[::-1], interpolation=cv2.INTER_LINEAR))
