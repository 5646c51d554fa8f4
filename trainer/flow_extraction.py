"""Flow extraction: the optical flow of all training videos, computed once and stored on disk."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rvos_edge.progress import follow
from rvos_edge.trainer.data.config import DataConfig, FlowFolder, open_mixture
from rvos_edge.trainer.data.flow_cache import FlowCache, FlowKey
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.data.readers.base import AnnotatedClips, image_paths
from rvos_edge.trainer.data.readers.images import DamagedFileError
from rvos_edge.trainer.model.flow import FlowNetwork
from rvos_edge.trainer.model.hinet import HINet


def prepare_data(config: DataConfig, model: HINet, seed: int, *, console: Console) -> MixtureDataset:
    """Extract the flow that is missing, then open the mixture of a run.

    Raises:
        UserError: A folder or file is missing or damaged.
    """
    flow = None
    if model.flow is not None:
        flow = extract_flow(config, model.flow, model.config.size, console=console)
    return open_mixture(config, size=model.config.size, flow=flow, seed=seed)


def extract_flow(config: DataConfig, network: FlowNetwork, size: tuple[int, int], *, console: Console) -> FlowFolder:
    """Store the flow of all videos of a run as the runtime would compute it, at the network's input size whatever that
    of the samples; existing flow is kept.

    Raises:
        UserError: A folder or file is missing or damaged.
    """
    flow = FlowFolder(Path(config.flow), flow_key(network, size))
    for videos in (source.videos_with_flow() for source in config.sources):
        if videos is not None:
            kind, clips = videos
            extract_clips(clips, flow.cache(kind), network, console=console)
    return flow


def extract_clips(clips: AnnotatedClips, cache: FlowCache, network: FlowNetwork, *, console: Console) -> None:
    """Store the flow of the videos that lack it.

    A damaged frame is replaced by the one before it, with a warning.
    """
    paths = {video: image_paths(clips, video) for video in clips.videos}
    missing = [video for video in clips.videos if not cache.has(video, paths[video])]
    for video in follow(missing, "flow", console):
        cache.write(video, paths[video], network.stream(_resized_frames(clips, video, cache.key.size)))


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
