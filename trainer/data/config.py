"""Data of a training run: a list of sources with shares; each source opens itself."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from rvos_edge.errors import UserError, about
from rvos_edge.strict import StrictModel
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.datasets import DATASETS, dataset_of
from rvos_edge.trainer.data.flow_cache import FlowCache, FlowKey, FlowSource, LiveFlow
from rvos_edge.trainer.data.generate.captions import read_captions
from rvos_edge.trainer.data.generate.copy_paste import ComposedDataset
from rvos_edge.trainer.data.generate.held_out import HeldOut, load_held_out
from rvos_edge.trainer.data.generate.instance_names import read_names
from rvos_edge.trainer.data.generate.synthetic import SyntheticDataset
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.data.readers.base import AnnotatedClips
from rvos_edge.trainer.data.readers.coco import CocoDataset
from rvos_edge.trainer.data.readers.davis16 import SCENERY
from rvos_edge.trainer.data.readers.refcoco import RefCocoClips
from rvos_edge.trainer.data.sample import Drawable
from rvos_edge.trainer.data.transforms import Augmentation

_ENDLESS = 1 << 40
"""Length of the mixture: the training loop decides how many samples are drawn."""


@dataclass(frozen=True)
class FlowFolder:
    """Stored flow of all data sets, in ``ROOT/<hash of key>/<kind>/``: other settings never overwrite it.

    Attributes:
        store: A form of ``flow_cache.STORES``; forms other than float16 have folders of their own. With "none" nothing
            is stored, and ``network`` computes what is read.
    """

    root: Path
    key: FlowKey
    store: str = "float16"
    network: FlowSource | None = None

    def cache(self, kind: str) -> FlowCache:
        """The flow of the data set of a source's kind; DAVIS-16 lies in the folder of the key itself."""
        name = hashlib.sha256(repr(self.key).encode()).hexdigest()[:12]
        folder = self.root / (name if self.store == "float16" else f"{name}-{self.store}")
        folder = folder if kind in ("davis", "davis16") else folder / kind
        return FlowCache(folder, key=self.key, store=self.store)

    def of(self, kind: str, clips: AnnotatedClips) -> FlowCache | LiveFlow:
        """The flow of a source's clips."""
        return self.cache(kind) if self.network is None else LiveFlow(clips, self.network, key=self.key)


@dataclass(frozen=True)
class OpenOptions:
    """Options that all sources of a run share.

    Attributes:
        held_out: Words that are never used.
        distractors: Expressions of the videos, which are tried as absent ones on still images.
        videos: Names of the opened videos by kind of source.
    """

    size: tuple[int, int]
    flow: FlowFolder | None
    augmentation: Augmentation
    held_out: HeldOut | None = None
    distractors: list[str] = field(default_factory=list)
    videos: dict[str, set[str]] = field(default_factory=dict)

    @property
    def sample(self) -> dict[str, Any]:
        """Arguments that every data set takes: ``size``, ``flow_size`` and ``augmentation``."""
        scale = self.flow.key.scale if self.flow is not None else 1
        flow_size = (self.size[0] // scale, self.size[1] // scale)
        return {"size": self.size, "flow_size": flow_size, "augmentation": self.augmentation}


class _Source(StrictModel):
    kind: str
    share: float = Field(gt=0)
    """Share of the samples, relative to the other sources."""

    gives_distractors: ClassVar[bool] = False
    """True where ``open`` adds distractors for the other sources, so that it is opened before them."""

    def clips(self) -> AnnotatedClips:
        """The videos or images and their written expressions.

        Raises:
            UserError: A folder or file is missing or damaged, or the expressions are generated during training.
        """
        raise UserError(f"A source of kind {self.kind} has no written expressions; leave it out of the sources.")

    @abstractmethod
    def open(self, options: OpenOptions) -> Drawable:
        """The data set.

        Raises:
            UserError: A folder or file is missing or damaged.
        """

    def videos_with_flow(self) -> tuple[str, AnnotatedClips] | None:
        """Kind and videos whose flow must be stored before ``open``; None for still images and synthetic scenes."""
        return None


class VideoSource(_Source):
    """Videos of a data set with written expressions and stored flow."""

    kind: Literal["davis", "davis16", "davis17", "youtube_vos", "mevis", "a2d", "jhmdb"]
    gives_distractors = True
    root: str
    expressions: str | None = None
    videos: Literal["train", "val", "all"] | list[str] = "train"
    """A split, ``train`` alone but for DAVIS, or the names of videos."""

    @model_validator(mode="after")
    def _trains(self) -> VideoSource:
        if self.kind == "jhmdb":
            raise ValueError("J-HMDB-Sentences is for evaluation only; train on a2d and evaluate on jhmdb")
        if isinstance(self.videos, str) and self.videos != "train" and not self.kind.startswith("davis"):
            raise ValueError(f"videos: {self.videos} is for DAVIS; {self.kind} has train, or names of videos")
        return self

    @property
    def is_davis16(self) -> bool:
        """True for DAVIS-16, whose scenery is known."""
        return dataset_of(self.kind) == "davis16"

    def clips(self) -> AnnotatedClips:
        if not Path(self.root).is_dir():
            name = "davis16" if self.is_davis16 else self.kind
            raise UserError(
                f"The {self.kind} folder {self.root} does not exist; set root to where you unpacked it, and look with: "
                f"rvos-edge data check --dataset {name} --root DIR"
            )
        listed = isinstance(self.videos, list)
        chosen = {"split": "train", "videos": self.videos} if listed else {"split": self.videos}
        return DATASETS[dataset_of(self.kind)].reader(self.root, expressions=self.expressions, **chosen)

    def videos_with_flow(self) -> tuple[str, AnnotatedClips]:
        return self.kind, self.clips()

    def open(self, options: OpenOptions) -> ClipsDataset:
        clips = self.clips()
        flow = options.flow.of(self.kind, clips) if options.flow is not None else None
        scenery = SCENERY if self.is_davis16 else None
        data = ClipsDataset(clips, flow=flow, scenery=scenery, **options.sample)
        options.distractors.extend(sentence for video in data.videos for sentence in data.sentences(video))
        options.videos.setdefault(self.kind, set()).update(data.videos)
        return data


class RefCocoSource(_Source):
    """Images of RefCOCO, RefCOCO+ or RefCOCOg as clips of one frame, with synthetic camera motion."""

    kind: Literal["refcoco"]
    root: str
    expressions: str | None = None
    split: str = "train"
    annotations: str | None = None
    images: str | None = None

    def clips(self) -> AnnotatedClips:
        return RefCocoClips(**self.model_dump(exclude={"kind", "share"}))

    def open(self, options: OpenOptions) -> ClipsDataset:
        return ClipsDataset(self.clips(), still=True, distractors=options.distractors, **options.sample)


class CocoFiles(StrictModel):
    """A folder of images with COCO instances, and further annotations of them."""

    root: str
    split: Literal["all", "train", "held_out"] = "train"
    """``train`` leaves out the images of the swap test, ``held_out`` keeps only those."""
    lone_only: bool = False
    """An image with one annotation was annotated for that object alone, so that nothing counts as absent from it."""
    names: str | None = None
    """Narrower names of the instances, made with ``python -m rvos_edge.trainer.data.generate.instance_names``."""
    captions: str | None = None
    """Captions of the images: JSON, a list of sentences for each file name."""
    labels: str | None = None
    """A folder of images of garment numbers, with ``labels.json`` beside it."""

    def dataset(self, options: OpenOptions, distractors: Sequence[str] = ()) -> CocoDataset:
        """The images as a data set.

        Raises:
            UserError: A folder or file is missing or damaged.
        """
        return CocoDataset(
            self.root,
            distractors=distractors,
            split=self.split,
            lone_only=self.lone_only,
            names=read_names(Path(self.names)) if self.names else None,
            captions=read_captions(Path(self.captions)) if self.captions else None,
            labels=self.labels,
            held_out=options.held_out,
            **options.sample,
        )


class CocoSource(CocoFiles, _Source):
    """COCO images with expressions from their annotations, and synthetic motion."""

    kind: Literal["coco"]

    def open(self, options: OpenOptions) -> CocoDataset:
        return self.dataset(options, options.distractors)


class ComposedSource(_Source):
    """COCO objects pasted into COCO and DAVIS frames, several candidates each."""

    kind: Literal["composed"]
    coco: str | CocoFiles
    """Images of the backgrounds and objects."""
    objects: list[CocoFiles] = Field(default_factory=list)
    """Further images of objects."""
    split: Literal["all", "train"] = "train"
    """Images of ``coco`` where it is the name of a folder."""
    davis: str | None = None
    expressions: str | None = None
    davis_backgrounds: float = Field(default=0.5, ge=0, le=1)
    """Share of backgrounds from DAVIS."""
    riders: float = Field(default=0.25, ge=0, le=1)
    """Probability that the first pasted object is one that people ride, most of them with a rider."""
    grounds: float = Field(default=0.0, ge=0, le=1)
    """Probability of a reflection or a shadow below a pasted object."""
    rows: float = Field(default=0.0, ge=0, le=1)
    """Probability that two to five people or animals of one kind stand in a row."""

    def videos_with_flow(self) -> tuple[str, AnnotatedClips] | None:
        return None if self.davis is None else self._davis(self.davis).videos_with_flow()

    def open(self, options: OpenOptions) -> ComposedDataset:
        files = self.coco if isinstance(self.coco, CocoFiles) else CocoFiles(root=self.coco, split=self.split)
        return ComposedDataset(
            coco=files.dataset(options),
            objects=[one.dataset(options) for one in self.objects],
            # Its expressions are no distractors: they may be true of a composed frame.
            davis=None if self.davis is None else self._davis(self.davis).open(replace(options, distractors=[])),
            davis_backgrounds=self.davis_backgrounds,
            riders=self.riders,
            grounds=self.grounds,
            rows=self.rows,
        )

    def _davis(self, root: str) -> VideoSource:
        return VideoSource(kind="davis", root=root, expressions=self.expressions, share=1)


class SyntheticSourceConfig(_Source):
    """Scenes of the synthetic camera; seeds below 1000 are held out."""

    kind: Literal["synthetic"]

    def open(self, options: OpenOptions) -> SyntheticDataset:
        return SyntheticDataset(**options.sample)


Source = Annotated[
    VideoSource | RefCocoSource | CocoSource | ComposedSource | SyntheticSourceConfig, Field(discriminator="kind")
]


class DataConfig(StrictModel):
    """The mixture of sources of a run."""

    sources: list[Source] = Field(min_length=1)
    size: tuple[int, int] | None = None
    """Height and width of the samples; the network's by default."""
    queries: int = Field(default=4, ge=1)
    """(expression, mask) pairs per sample: vision runs once for all of them."""
    spare_queries: int = Field(default=0, ge=0)
    """Further pairs per sample for the alignment loss alone, where a sentence is cheap."""
    absent_share: float = Field(default=0.25, ge=0, lt=1)
    """Share of pairs whose expression names nothing in the frame."""
    view: Literal["edge", "paper"] = "edge"
    """Augmentation: ``edge`` crops a random window and varies colours and quality; ``paper`` resizes to the height of
    ``size`` and takes a random crop of its width (supplement, section 1)."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a mirrored view, with left and right exchanged in its sentences."""
    flow: str = "runs/flow"
    """Folder of the stored flow."""
    flow_store: Literal["float16", "uint8", "half", "none"] = "float16"
    """Form of the stored flow: ``uint8`` takes half the space, ``half`` (half the resolution) a quarter; ``none``
    stores nothing and computes it on every use, on a GPU with ``workers: 0`` alone."""
    flow_batch: int = Field(default=1, ge=1)
    """Videos whose flow is computed side by side, on every process."""
    held_out: bool = False
    """Never use the words of ``generate/held_out.yaml``, on which the model is evaluated as on unknown words."""
    licences: list[str] = Field(default_factory=list)
    """Licences of the data, for the model card."""


def open_mixture(config: DataConfig, *, size: tuple[int, int], flow: FlowFolder | None, seed: int) -> MixtureDataset:
    """Open all sources as one data set.

    Raises:
        UserError: A folder or file is missing or damaged, or flow is missing.
    """
    paper = config.view == "paper"
    augmentation = Augmentation.paper(flip=config.flip) if paper else Augmentation(flip=config.flip)
    held_out = load_held_out() if config.held_out else None
    options = OpenOptions(config.size or size, flow, augmentation, held_out)
    # Videos first: their expressions are the distractors of the others.
    sources = sorted(enumerate(config.sources), key=lambda item: not item[1].gives_distractors)
    total = sum(source.share for source in config.sources)
    children = []
    for index, source in sources:
        with about(f"data.sources.{index}"):
            children.append((source.open(options), source.share))
    return MixtureDataset(
        children,
        length=_ENDLESS,
        queries=config.queries,
        seed=seed,
        absent_share=config.absent_share,
        spare=config.spare_queries,
        shares=tuple((source.kind, round(source.share / total, 4)) for _, source in sources),
        videos={kind: sorted(names) for kind, names in options.videos.items()},
        leave_out=held_out.says if held_out is not None else None,
    )


def expressions_of(sources: Sequence[Source]) -> list[str]:
    """The written expressions of data sets, each once, in a fixed order.

    Raises:
        UserError: A folder or file is missing, or a source's expressions are generated during training.
    """
    found: dict[str, None] = {}
    for index, source in enumerate(sources):
        with about(f"sources.{index}"):
            clips = source.clips()
        found.update(dict.fromkeys(query.expression for video in clips.videos for query in clips.queries(video)))
    return list(found)
