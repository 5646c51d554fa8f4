"""Which data a run trains on: a list of sources with shares, read from the training configuration."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from rich.console import Console
from rich.progress import track

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.flow_cache import FlowCache, FlowKey
from rvos_edge.trainer.data.generate.captions import read_captions
from rvos_edge.trainer.data.generate.copy_paste import ComposedDataset
from rvos_edge.trainer.data.generate.held_out import load_held_out
from rvos_edge.trainer.data.generate.instance_names import read_names
from rvos_edge.trainer.data.generate.synthetic import SyntheticDataset
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.data.readers.a2d import A2dClips
from rvos_edge.trainer.data.readers.base import AnnotatedClips, ReferringClips, image_paths
from rvos_edge.trainer.data.readers.coco import CocoDataset
from rvos_edge.trainer.data.readers.davis16 import SCENERY, Davis16Clips
from rvos_edge.trainer.data.readers.davis17 import Davis17Clips
from rvos_edge.trainer.data.readers.images import DamagedFileError
from rvos_edge.trainer.data.readers.refcoco import RefCocoClips
from rvos_edge.trainer.data.readers.youtube_vos import YouTubeVosClips
from rvos_edge.trainer.data.sample import Drawable
from rvos_edge.trainer.data.transforms import Augmentation
from rvos_edge.trainer.model.flow import FlowNetwork
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import StrictModel

_DAVIS16 = ("davis", "davis16")
_ENDLESS = 1 << 40
"""Length of the mixture: the loop decides how many samples are drawn."""


class DavisSource(StrictModel):
    """DAVIS-16 videos with their expressions and their stored flow."""

    kind: Literal["davis", "davis16"]
    root: str
    expressions: str | None = None
    videos: Literal["train", "val", "all"] | list[str] = "train"
    share: float = Field(gt=0)


class Davis17Source(StrictModel):
    """DAVIS-17 videos, several objects each."""

    kind: Literal["davis17"]
    root: str
    expressions: str | None = None
    videos: Literal["train", "val", "all"] | list[str] = "train"
    share: float = Field(gt=0)


class YouTubeVosSource(StrictModel):
    """The training videos of Refer-YouTube-VOS."""

    kind: Literal["youtube_vos"]
    root: str
    expressions: str | None = None
    videos: Literal["train"] | list[str] = "train"
    share: float = Field(gt=0)


class A2dSource(StrictModel):
    """The training videos of A2D-Sentences."""

    kind: Literal["a2d"]
    root: str
    expressions: str | None = None
    videos: Literal["train"] | list[str] = "train"
    share: float = Field(gt=0)


class RefCocoSource(StrictModel):
    """Images of RefCOCO, RefCOCO+ or RefCOCOg as static clips with made-up motion."""

    kind: Literal["refcoco"]
    root: str
    expressions: str | None = None
    split: str = "train"
    annotations: str | None = None
    images: str | None = None
    share: float = Field(gt=0)


class JhmdbSource(StrictModel):
    """Named so that it can be refused: J-HMDB-Sentences has no training videos."""

    kind: Literal["jhmdb"]

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, value: object) -> object:
        raise ValueError("J-HMDB-Sentences is for evaluation only; train on a2d and evaluate on jhmdb")


class CocoFiles(StrictModel):
    """A folder of images with instances as COCO's, and what else is known of them."""

    root: str
    split: Literal["all", "train", "held_out"] = "train"
    """``train`` leaves out the pictures that the swap test asks about, ``held_out`` keeps only those."""
    lone_only: bool = False
    """An image with one annotation was annotated for that object alone, so nothing is absent from it."""
    names: str | None = None
    """Narrower names of the instances, made with ``python -m rvos_edge.trainer.data.generate.instance_names``."""
    captions: str | None = None
    """Sentences about the images: JSON, a list of them for each file name."""
    labels: str | None = None
    """A folder of images of garment numbers, with ``labels.json`` beside it."""


class CocoSource(CocoFiles):
    """COCO images as static clips with made-up motion."""

    kind: Literal["coco"]
    share: float = Field(gt=0)


class ComposedSource(StrictModel):
    """COCO objects pasted into COCO and DAVIS frames, several candidates each."""

    kind: Literal["composed"]
    coco: str | CocoFiles
    """Pictures that lend backgrounds and objects."""
    objects: list[CocoFiles] = Field(default_factory=list)
    """Further pictures that lend objects."""
    split: Literal["all", "train"] = "train"
    """Which pictures of ``coco`` when it is a folder's name."""
    davis: str | None = None
    expressions: str | None = None
    davis_backgrounds: float = Field(default=0.5, ge=0, le=1)
    riders: float = Field(default=0.25, ge=0, le=1)
    """Probability that the first pasted object is one that people ride, most of them with a rider."""
    grounds: float = Field(default=0.0, ge=0, le=1)
    """Probability that a pasted object is mirrored by water below it, or casts a shadow."""
    rows: float = Field(default=0.0, ge=0, le=1)
    """Probability that two to five people or animals of one kind stand in a row."""
    share: float = Field(gt=0)


class SyntheticSourceConfig(StrictModel):
    """Scenes of the synthetic camera; seeds below 1000 are held out."""

    kind: Literal["synthetic"]
    share: float = Field(gt=0)


VideoSource = DavisSource | Davis17Source | YouTubeVosSource | A2dSource
Source = Annotated[
    VideoSource | RefCocoSource | JhmdbSource | CocoSource | ComposedSource | SyntheticSourceConfig,
    Field(discriminator="kind"),
]


class DataConfig(StrictModel):
    """The mixture a run draws from."""

    sources: list[Source] = Field(min_length=1)
    size: tuple[int, int] | None = None
    """Height and width of the samples; the network's by default."""
    queries: int = Field(default=4, ge=1)
    """(expression, mask) pairs per sample: vision runs once for all of them."""
    spare_queries: int = Field(default=0, ge=0)
    """Further pairs per sample, for the alignment loss alone: there a sentence costs next to nothing."""
    absent_share: float = Field(default=0.25, ge=0, lt=1)
    """Share of pairs whose expression names nothing in the frame."""
    view: Literal["edge", "paper"] = "edge"
    """Augmentation: a random window with changed colours and quality, or the paper's resize to the height of ``size``
    with a random crop of its width."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a mirrored view, with left and right exchanged in its sentences."""
    flow: str = "runs/flow"
    """Where the flow of the videos is stored."""
    held_out: bool = False
    """Never say the words of ``generate/held_out.yaml``, on which the model is judged as on words it was not taught."""
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
    augmentation = Augmentation.paper(flip=config.flip) if config.view == "paper" else Augmentation(flip=config.flip)
    frame = _Frame(size, (size[0] // scale, size[1] // scale), augmentation)
    children: list[tuple[Drawable, float]] = []
    shares: list[tuple[str, float]] = []
    sentences: list[str] = []
    # Videos first: their sentences are the hardest absent ones for still images.
    for source in sorted(config.sources, key=lambda source: not isinstance(source, VideoSource)):
        child: Drawable
        if isinstance(source, VideoSource):
            child = clips = _with_flow(source.kind, _open_videos(source), frame, config, model, console)
            sentences += [sentence for video in clips.videos for sentence in clips.sentences(video)]
        elif isinstance(source, RefCocoSource):
            child = ClipsDataset(_open_refcoco(source), still=True, distractors=sentences, **frame._asdict())
        elif isinstance(source, CocoSource):
            child = _open_coco(source, frame, config, sentences)
        elif isinstance(source, ComposedSource):
            files = (
                source.coco if isinstance(source.coco, CocoFiles) else CocoFiles(root=source.coco, split=source.split)
            )
            davis = None
            if source.davis is not None:
                videos = Davis16Clips(source.davis, split="train", expressions=source.expressions)
                davis = _with_flow("davis", videos, frame, config, model, console)
            child = ComposedDataset(
                coco=_open_coco(files, frame, config),
                objects=[_open_coco(one, frame, config) for one in source.objects],
                davis=davis,
                davis_backgrounds=source.davis_backgrounds,
                riders=source.riders,
                grounds=source.grounds,
                rows=source.rows,
            )
        elif isinstance(source, SyntheticSourceConfig):
            child = SyntheticDataset(**frame._asdict())
        else:
            raise AssertionError(f"{source.kind} is refused when the configuration is read")
        children.append((child, source.share))
        shares.append((source.kind, source.share))
    mixture = NamedMixture(
        children,
        length=_ENDLESS,
        queries=config.queries,
        seed=seed,
        absent_share=config.absent_share,
        spare=config.spare_queries,
        leave_out=load_held_out().says if config.held_out else None,
    )
    total = sum(share for _, share in shares)
    mixture.shares = tuple((name, round(share / total, 4)) for name, share in shares)
    return mixture


def expressions_of(sources: Sequence[Source]) -> list[str]:
    """The written expressions of data sets, each once, in a fixed order.

    Raises:
        UserError: A folder or file is missing, or a source's sentences are made up while training.
    """
    said: dict[str, None] = {}
    for source in sources:
        clips: ReferringClips
        if isinstance(source, VideoSource):
            clips = _open_videos(source)
        elif isinstance(source, RefCocoSource):
            clips = _open_refcoco(source)
        else:
            raise UserError(f"A source of kind {source.kind} has no written expressions; leave it out of the sources.")
        said.update(dict.fromkeys(query.expression for video in clips.videos for query in clips.queries(video)))
    return list(said)


def build_flow(clips: AnnotatedClips, store: FlowCache, network: FlowNetwork, *, console: Console) -> None:
    """Store the flow of every video, as the runtime would compute it; what is there is kept."""

    def estimate(frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        return network.stream(frames)

    paths = {video: image_paths(clips, video) for video in clips.videos}
    missing = [video for video in clips.videos if not store.has(video, paths[video])]
    for video in track(missing, description="flow", console=console, disable=not missing):
        store.build(video, paths[video], estimate, images=_readable(clips, video), rebuild=True)


def flow_key(network: FlowNetwork, size: tuple[int, int]) -> FlowKey:
    """What a stored flow depends on besides its frames."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return FlowKey(checkpoint=digest.hexdigest(), size=size, scale=network.scale, iterations=network.iterations)


class _Frame(NamedTuple):
    """What the samples of all sources have in common: sizes of image and flow, (H,W) each, and how they are varied."""

    size: tuple[int, int]
    flow_size: tuple[int, int]
    augmentation: Augmentation


def _open_videos(source: VideoSource) -> AnnotatedClips:
    if not Path(source.root).is_dir():
        raise UserError(
            f"The {source.kind} folder {source.root} does not exist; set its root in data.sources to where you "
            f"unpacked it, and look with: rvos-edge data check --dataset {source.kind} --root DIR"
        )
    split = source.videos if isinstance(source.videos, str) else "train"
    videos = None if isinstance(source.videos, str) else source.videos
    if isinstance(source, Davis17Source):
        return Davis17Clips(source.root, split=split, expressions=source.expressions, videos=videos)
    if isinstance(source, YouTubeVosSource):
        return YouTubeVosClips(source.root, split=split, expressions=source.expressions, videos=videos)
    if isinstance(source, A2dSource):
        return A2dClips(source.root, split=split, expressions=source.expressions, videos=videos)
    return Davis16Clips(source.root, split=split, expressions=source.expressions, videos=videos)


def _open_refcoco(source: RefCocoSource) -> RefCocoClips:
    return RefCocoClips(
        source.root,
        split=source.split,
        expressions=source.expressions,
        annotations=source.annotations,
        images=source.images,
    )


def _open_coco(files: CocoFiles, frame: _Frame, config: DataConfig, distractors: Sequence[str] = ()) -> CocoDataset:
    return CocoDataset(
        files.root,
        distractors=distractors,
        split=files.split,
        lone_only=files.lone_only,
        names=read_names(Path(files.names)) if files.names else None,
        captions=read_captions(Path(files.captions)) if files.captions else None,
        labels=files.labels,
        held_out=load_held_out() if config.held_out else None,
        **frame._asdict(),
    )


def _with_flow(
    kind: str, clips: AnnotatedClips, frame: _Frame, config: DataConfig, model: HINet, console: Console
) -> ClipsDataset:
    """The clips as samples, with their stored flow, which is computed first where it is missing."""
    store = None
    if model.flow is not None:
        # The flow is that of the network's own input size, whatever the size trained at: it is what the runtime sees.
        key = flow_key(model.flow, model.config.size)
        # One folder per key: presets with other settings do not overwrite each other's flow; nor do data sets, which
        # may name different videos alike.
        folder = Path(config.flow) / hashlib.sha256(repr(key).encode()).hexdigest()[:12]
        store = FlowCache(folder if kind in _DAVIS16 else folder / kind, key=key)
        build_flow(clips, store, model.flow, console=console)
    scenery = SCENERY if kind in _DAVIS16 else None
    return ClipsDataset(clips, flow=store, scenery=scenery, **frame._asdict())


def _readable(clips: AnnotatedClips, video: str) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video; a damaged one is replaced by the one before it, as if nothing had moved."""
    last = np.zeros((32, 32, 3), np.uint8)
    for index in range(len(clips.frames(video))):
        try:
            last = clips.image(video, index)
        except DamagedFileError as error:
            warnings.warn(f"{error}; its flow is that of a still camera", stacklevel=2)
        yield last
