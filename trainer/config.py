"""Training configurations: strict YAML files with overrides from the command line; ``task`` selects the class."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import Field, field_validator, model_validator

from rvos_edge.errors import UserError
from rvos_edge.strict import StrictModel
from rvos_edge.trainer.data.config import DataConfig, Source
from rvos_edge.trainer.losses.segmentation import LossConfig
from rvos_edge.trainer.model.language import read_text_config
from rvos_edge.trainer.model.presets import ModelConfig, model_config, parse_config
from rvos_edge.trainer.model.weights import InitialWeights
from rvos_edge.trainer.schedule import OptimizerConfig
from rvos_edge.trainer.speed import SpeedConfig

DATA_ROOT = "DATA_ROOT"
"""Variable of the folder with the data sets in ``data`` and pretrained weights in ``weights``; ``$DATA_ROOT`` in a
configuration stands for it, and ``--set DATA_ROOT=FOLDER`` goes before the environment."""
HARMLESS = {"workers", "threads", "log_every", "checkpoint_every", "keep_every", "speed", "validation", "wandb"}
"""Keys without influence on the weights."""
_LENGTH = {"iterations", "epochs"}


class RunConfig(StrictModel):
    """Base of the configurations of all tasks."""

    name: str
    model: dict[str, Any]
    """``preset``, and any top-level keys of ModelConfig to change. ``text`` may be the source of a text model, as
    ``weights.text``, or its fields with the source as ``source``."""
    amp: Literal["auto", "fast", "off", "bf16", "fp16"] = "auto"
    """Mixed precision; ``auto`` is fp16 with a scaler on CUDA and off elsewhere, ``fast`` also bf16 on CPUs with
    AVX512-BF16."""
    seed: int = 0
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the training process."""
    log_every: int = Field(default=10, gt=0)

    @field_validator("amp", mode="before")
    @classmethod
    def _yaml_reads_off_as_false(cls, value: object) -> object:
        return "off" if value is False else value

    def model_config_of(self) -> ModelConfig:
        """The network's configuration.

        Raises:
            UserError: Unknown preset or key.
        """
        changes = dict(self.model)
        preset = changes.pop("preset", None)
        if not isinstance(preset, str):
            raise UserError("The training configuration needs model.preset; choose paper, desktop, edge or test.")
        text, source = changes.get("text"), self.text_source()
        if source is not None:
            further = {k: v for k, v in text.items() if k != "source"} if isinstance(text, dict) else {}
            changes["text"] = read_text_config(source, further).model_dump(exclude_unset=True)
        return model_config(preset, **changes)

    def text_source(self) -> str | None:
        """The source of the text model that ``model`` names, if it does."""
        text = self.model.get("text")
        return text.get("source") if isinstance(text, dict) else text


class ValidationConfig(StrictModel):
    """Scores of a data set during training, with the weights that are saved; the best ones are kept in ``best``."""

    dataset: str
    """A data set of videos, named as in ``rvos-edge eval``."""
    root: str
    split: str | None = None
    """A split, or names of videos with commas; the one usually judged if left out."""
    expressions: str | None = None
    every: int = Field(gt=0)
    """Iterations between two validations; the last iteration has one, too."""
    frames: int = Field(default=1, ge=1)
    """Every n-th frame is scored; all are seen."""
    patience: int | None = Field(default=None, ge=1)
    """Number of validations without a better score after which the run ends; its result is then ``best``, and the
    network that it starts from is scored, too."""


class TrainConfig(RunConfig):
    """Configuration of a training run, stored beside its checkpoints."""

    task: Literal["segmentation"] = "segmentation"
    weights: InitialWeights = InitialWeights()
    init_from: str | None = None
    """A checkpoint directory, or a file of weights, to start from: what fits is taken, the rest is as ``weights`` says
    (fine-tuning after pre-training, variants of one pre-training). ``rvos-edge train`` takes a bundle, too."""
    data: DataConfig
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    iterations: int | None = Field(default=None, gt=0)
    """Number of iterations; exactly one of ``iterations`` and ``epochs`` is given."""
    epochs: int | None = Field(default=None, gt=0)
    """Number of passes over the single source: over its pairs of expression and annotated frame with ``data.queries:
    1``, else over its annotated frames. The last batch is completed with samples of the next epoch."""
    batch: int = Field(default=8, ge=2)
    """Samples per iteration over all processes; at least 2, as ASPP's pooled branch normalises over the batch."""
    accumulate: int = Field(default=1, ge=1)
    """Number of parts of a process's batch that go through the network one after the other: less memory. The curve is
    that of the whole batch where batch norms are frozen; otherwise they normalise over a part."""
    skip_limit: int = Field(default=10, ge=1)
    """Number of iterations in a row without a finite loss and gradient after which the run ends; each is skipped."""
    freeze_early: bool = False
    """Freeze the backbone up to C2."""
    freeze_backbone_norm: bool = False
    """Freeze the batch statistics of the backbone, which small batches would spoil."""
    freeze_norm: bool = False
    """Freeze all batch statistics, so that fine-tuning starts from exactly the given network."""
    flow_dropout: float = Field(default=0.0, ge=0, le=1)
    """Probability that a sample's flow is zeroed, as it is at run time on frames whose flow is skipped (beyond the
    paper)."""
    sentence_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the sentence vectors (beyond the paper)."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of the weights that is saved; 0 saves the weights themselves."""
    workers: int = Field(default=0, ge=0)
    """Loader processes per training process."""
    checkpoint_every: int = Field(default=200, gt=0)
    """Iterations between two checkpoints."""
    keep_every: int | None = Field(default=None, gt=0)
    """Iterations between two snapshots of the weights, which are kept for ``rvos-edge average``."""
    speed: SpeedConfig = SpeedConfig()
    validation: ValidationConfig | None = None
    wandb: str | None = None
    """Project at Weights & Biases that gets the curves, too; needs the package wandb."""

    @model_validator(mode="after")
    def _parts_are_equal(self) -> TrainConfig:
        if self.batch % self.accumulate or self.batch // self.accumulate < 2:
            raise ValueError(
                f"accumulate must divide batch into parts of at least 2, got {self.batch}/{self.accumulate}"
            )
        return self

    @model_validator(mode="after")
    def _sizes_fit_the_strides(self) -> TrainConfig:
        size = self.data.size
        if size is not None and any(extent < 32 or extent % 32 for extent in size):
            raise ValueError(f"data.size must be multiples of 32, got {size[0]}x{size[1]}")
        return self

    @model_validator(mode="after")
    def _has_one_length(self) -> TrainConfig:
        if (self.iterations is None) == (self.epochs is None):
            raise ValueError("give iterations or epochs, one of the two")
        if self.epochs is not None and len(self.data.sources) > 1:
            raise ValueError("epochs are those of a single source; give iterations for a mixture")
        return self

    def initial_weights(self) -> InitialWeights:
        """``weights``, with the text model that ``model`` names where they name none."""
        return self.weights.model_copy(update={"text": self.weights.text or self.text_source()})

    def steps(self, epoch: int | None) -> int:
        """Number of iterations of the run.

        Args:
            epoch: Samples of an epoch of the source; None for an endless source.

        Raises:
            UserError: ``epochs`` is given and the source is endless.
        """
        if self.iterations is not None:
            return self.iterations
        assert self.epochs is not None
        if epoch is None:
            raise UserError(
                f"epochs: a source of kind {self.data.sources[0].kind} has no end; give iterations instead."
            )
        return math.ceil(self.epochs * epoch / self.batch)

    def differences(self, other: TrainConfig) -> list[str]:
        """Keys in which two runs differ, without their length and what does not influence the result."""
        one, two = (config.model_dump(mode="json", exclude=HARMLESS | _LENGTH) for config in (self, other))
        return [key for key in one if one[key] != two[key]]


class MlmConfig(RunConfig):
    """Masked-language modelling of the text model (supplement, section 1); see ``tasks.mlm``."""

    task: Literal["mlm"]
    text: str | None = None
    """Source of the text model, as ``weights.text`` of a training run."""
    sources: list[Source] = Field(min_length=1)
    """Data sets of the expressions; shares are ignored."""
    epochs: int = Field(default=1, gt=0)
    batch: int = Field(default=32, gt=0)
    masked: float = Field(default=0.15, gt=0, lt=1)
    """Share of masked tokens."""
    lr: float = Field(default=5e-5, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)


class PresenceConfig(RunConfig):
    """The presence head of a finished network (beyond the paper); see ``tasks.presence``."""

    task: Literal["presence"]
    init_from: str
    """Checkpoint directory of the network."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Unused: the network is that of the checkpoint."""
    data: DataConfig
    held_out: DataConfig
    """Mixture of the calibration, from images that are kept from training."""
    samples: int = Field(gt=0)
    """Number of training samples, each used once; a quarter as many held-out samples are used."""
    batch: int = Field(default=8, ge=1)
    rows: int = Field(default=256, ge=1)
    """Expressions per step of the head."""
    epochs: int = Field(default=15, ge=1)
    lr: float = Field(default=0.001, gt=0)
    weight_decay: float = Field(default=0.3, ge=0)
    flow_dropout: float = Field(default=0.35, ge=0, le=1)
    workers: int = Field(default=0, ge=0)
    """Loader processes."""

    @model_validator(mode="after")
    def _there_are_samples_for_a_batch(self) -> PresenceConfig:
        if self.samples < 4 * self.batch:
            raise ValueError(f"samples must be at least four batches, {4 * self.batch}, got {self.samples}")
        return self


class AverageConfig(StrictModel):
    """Mean of checkpoints with a common start; see ``tasks.average``."""

    name: str
    task: Literal["average"]
    of: list[str] = Field(min_length=1)
    """Checkpoint directories."""


class StagesConfig(StrictModel):
    """A sequence of trainings; see ``tasks.stages``."""

    name: str
    shared: dict[str, Any] = Field(default_factory=dict)
    """Parts that several stages share through YAML anchors."""
    stages: list[TrainConfig | AverageConfig | PresenceConfig] = Field(min_length=1)
    """Stages with unique names. In ``init_from`` and ``of``, ``stage:NAME`` stands for the checkpoint of an earlier
    stage and ``stage:NAME/000600`` for a snapshot of it."""

    @model_validator(mode="after")
    def _names_differ(self) -> StagesConfig:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"every stage needs a name of its own, got {', '.join(names)}")
        return self


Config = TrainConfig | MlmConfig | PresenceConfig | StagesConfig
_TASKS: dict[object, type[TrainConfig] | type[MlmConfig] | type[PresenceConfig]] = {
    "mlm": MlmConfig,
    "presence": PresenceConfig,
}


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML configuration and apply ``key.sub=value`` overrides (values are YAML).

    Args:
        overrides: For example ``["iterations=100", "optimizer.lr=0.01"]``; the key ``+`` adds to a list, as in
            ``data.sources.+={kind: coco, root: DIR, share: 0.2}``.

    Raises:
        UserError: The file or a key does not exist, a value is out of range, or paths need a DATA_ROOT that is not set.
    """
    shipped = Path(__file__).parent / "configs" / (path.name if path.suffix else f"{path.name}.yaml")
    # Only a bare name is looked up among the shipped configurations: a mistyped path must not train another one.
    file = shipped if len(path.parts) == 1 and not path.is_file() else path
    if not file.is_file():
        # held-out.yaml is a list of words.
        names = ", ".join(sorted(item.stem for item in shipped.parent.glob("*.yaml") if item.stem != "held-out"))
        raise UserError(f"Training configuration {path} does not exist; give a YAML file, or one of: {names}.")
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not readable YAML ({str(error).splitlines()[0]}); mend the file.") from error
    if not isinstance(document, dict):
        raise UserError(f"{file} does not hold a mapping of keys; see the configurations that come with the package.")
    for override in overrides:
        _override(document, override)
    root = document.pop(DATA_ROOT, None) or os.environ.get(DATA_ROOT)
    document = _with_data_root(document, root, str(file))
    said = [f"--set {override}" for override in overrides if not override.startswith(f"{DATA_ROOT}=")]
    return parse(document, " ".join([str(path), *said]))


def parse(document: Mapping[str, Any], where: str) -> Config:
    """The configuration in a document; ``where`` names it in messages.

    Raises:
        UserError: A key is unknown or missing, or a value is out of range.
    """
    kind = StagesConfig if "stages" in document else _TASKS.get(document.get("task"), TrainConfig)
    config = cast("Config", parse_config(kind, document, where))
    for run in config.stages if isinstance(config, StagesConfig) else (config,):
        if isinstance(run, (TrainConfig, MlmConfig)):
            run.model_config_of()
    return config


def _with_data_root(node: Any, root: str | None, where: str) -> Any:
    """A document with its ``$DATA_ROOT`` replaced."""
    if isinstance(node, dict):
        return {key: _with_data_root(value, root, where) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_data_root(value, root, where) for value in node]
    if not isinstance(node, str) or f"${DATA_ROOT}" not in node:
        return node
    if not root:
        raise UserError(
            f"{where} reads {node}: say where that is with --set {DATA_ROOT}=FOLDER or export {DATA_ROOT}=FOLDER."
        )
    return node.replace(f"${DATA_ROOT}", root)


def _override(document: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set {override}: write it as key=value, for example --set optimizer.lr=0.01.")
    node: Any = document
    example = "--set 'data.sources.+={kind: coco, root: DIR, share: 0.2}'"
    *parents, last = key.split(".")
    for parent in parents:
        index: str | int = int(parent) if isinstance(node, list) and parent.isdigit() else parent
        try:
            node = node.setdefault(index, {}) if isinstance(node, dict) else node[index]
        except (IndexError, TypeError) as error:
            raise UserError(f"--set {override}: '{parent}' is not in the configuration; check the key.") from error
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not readable YAML; quote it.") from error
    if isinstance(node, list) and last == "+":
        node.append(parsed)
    elif isinstance(node, list) and last.isdigit() and int(last) < len(node):
        node[int(last)] = parsed
    elif isinstance(node, dict):
        node[last] = parsed
    else:
        hint = f"add to a list with {example}" if isinstance(node, list) else "check the key"
        raise UserError(f"--set {override}: '{key}' is not in the configuration; {hint}.")
