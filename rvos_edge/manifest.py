"""The manifest of a bundle: all facts that a runtime needs about the graphs beside it, as strict models.

docs/bundle.md describes the format. The wiring must close: every graph input must be a frame input, a state, a language
vector or an output of the same name, dtype and shape.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from rvos_edge.errors import UserError
from rvos_edge.flow.constants import MAX_ITERATIONS
from rvos_edge.strict import StrictModel

FORMAT_VERSION = 5
OLDEST_VERSION = 2
"""Oldest format version that is read: 2 has no ``boundary`` graph, 2 and 3 have no output ``presence``, 2 to 4 no graph
in int8.
"""
_MOST_BYTES = 1 << 22
"""Size limit of manifest.json; the shipped one has 18 kB."""
_MOST_ELEMENTS = 1 << 30
"""Size limit of one tensor."""

Arithmetic = Literal["float32", "float16", "bfloat16", "int8"]
DType = Literal["uint8", "int64", "float16", "float32"]
# Limits far beyond any real bundle, so that a damaged or hostile manifest is refused before it is used.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:/+ -]{1,100}$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{0,1000}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=10**18)]
Side = Annotated[int, Field(ge=1, le=1 << 14)]
Dim = Annotated[int, Field(ge=1, le=_MOST_ELEMENTS)] | Name
"""A fixed extent, or a symbolic one: "Q" queries, "L" tokens."""

TEXT_GRAPH = "text"
TEXT_INPUTS = frozenset({"input_ids", "attention_mask"})
VISION_GRAPHS = ("backbone", "aspp")
FUSED_VISION_GRAPH = "vision"
"""Graph that replaces ``backbone`` and ``aspp`` if they were exported as one."""
FLOW_GRAPHS = ("flow_encode", "flow_context", "flow_step", "flow_up")
GATING_GRAPH = "gating"
BOUNDARY_GRAPH = "boundary"
"""Optional graph that aligns the output of ``gating`` with the edges of the image."""
TEACH_GRAPH = "teach"
"""Optional: loss and gradient in the language vectors of one query, for learning on the device."""
TARGET, WEIGHT, LOSS, GRADIENT = "target", "weight", "loss", "grad"
"""Tensors of ``teach``: the wanted mask and each pixel's weight, float32 [1,1,h,w]; the loss [1]; ``grad1``, ..."""
TEACH_INPUTS = frozenset({TARGET, WEIGHT})
HOST_GRAPHS = (TEXT_GRAPH, TEACH_GRAPH)
"""Run on the host now and then, not with every frame."""
QUERIES = "Q"
"""Symbolic extent of every tensor with one row per query."""
FRAME_INPUT = "image"
MARGIN_OUTPUT = "margin"
PRESENCE_OUTPUT = "presence"
"""Output of ``gating`` in networks with a presence head: probability that the queried object is in the frame."""
FLOW_OUTPUT = "flow"
FLOW_COORDS = "coords"
_FORMS: dict[str, tuple[Any, ...]] = {
    MARGIN_OUTPUT: (QUERIES, "h", "w"),
    FLOW_OUTPUT: (1, 2, "h", "w"),
    FLOW_COORDS: (1, 2, "h", "w"),
}
"""Shapes that the runtime relies on, up to the extents of the image plane."""


class TensorSpec(StrictModel):
    """Name, dtype and shape of a graph input or output."""

    name: Name
    dtype: DType
    shape: Annotated[tuple[Dim, ...], Field(max_length=8)]

    @model_validator(mode="after")
    def _fits_in_memory(self) -> TensorSpec:
        if math.prod(dim for dim in self.shape if isinstance(dim, int)) > _MOST_ELEMENTS:
            raise ValueError(f"a tensor has at most {_MOST_ELEMENTS} elements")
        return self


class Parity(StrictModel):
    """Largest difference between a graph's outputs and those of PyTorch in float32 on the same inputs."""

    max_abs: float
    relative_l2: float
    cosine: float


class Proof(StrictModel):
    """Measured agreement of one backend with PyTorch: each graph by itself, and the chain on consecutive frames."""

    backend: Line
    """Backend, version and device."""
    note: Line = ""
    """Limits of the measurement, such as float16 nodes that ran in float32."""
    graphs: dict[Name, Parity]
    mask_iou: float | None = Field(ge=0, le=1)
    """IoU of the masks with PyTorch's over ``frames`` frames; None if only the graphs were compared."""
    frames: Count
    source: Line
    j: float | None = None
    """Region similarity of these masks, where the frames have true ones, and of those before quantisation."""
    j_before: float | None = None


class GraphSpec(StrictModel):
    """One ONNX graph of the bundle."""

    file: FileName
    sha256: Sha256
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: Arithmetic = "float32"
    """Arithmetic of the graph. bfloat16: a float32 file that a backend may also compute in bfloat16. int8: a file with
    quantised layers, whose other layers a backend may compute in bfloat16.
    """
    weights: Literal["float32", "float16", "int8"] = "float32"
    """Storage of the weights; they are widened to the arithmetic of the file when the graph is loaded."""
    flops: Count
    """2 x multiply-add of one run (one query for ``gating``, 20 tokens for ``text``)."""
    weight_bytes: Count


class TextSpec(StrictModel):
    """The tokenizer and its limit."""

    tokenizer: FileName = "tokenizer.json"
    sha256: Sha256
    max_tokens: int = Field(gt=2, le=1 << 16)
    """Longest query in tokens, [CLS] and [SEP] included."""


class FlowSpec(StrictModel):
    """Defaults of the optical flow; the runtime may change the iterations, the scale is fixed by the graphs."""

    iterations: int = Field(ge=1, le=MAX_ITERATIONS)
    scale: int = Field(ge=1, le=64)
    """The flow is computed on the image reduced by this factor; the ``flow`` tensor is in pixels of the image."""


class ReferenceSpec(StrictModel):
    """File with tensors computed by PyTorch in float32, to compare a backend with (``rvos-edge verify``)."""

    file: FileName
    sha256: Sha256


class Manifest(StrictModel):
    """The contents of manifest.json: all facts that a runtime needs about the graphs beside it."""

    format_version: int = Field(ge=OLDEST_VERSION, le=FORMAT_VERSION)
    name: Line
    preset: Line
    trained: bool = True
    """False for a network assembled from pretrained parts without training: its masks mean nothing."""
    network: dict[Name, str | int | float | bool | list[int]]
    size: tuple[Side, Side]
    """Height and width of ``image``, uint8 [H,W,3] BGR; normalisation is inside the graphs."""
    stride: Side
    """Pixels of ``image`` per pixel of ``margin``."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    text: TextSpec
    flow: FlowSpec | None
    graphs: dict[Name, GraphSpec]
    states: dict[Name, Name]
    """Input -> output whose buffers swap after a run: ``fmap_prev`` takes ``fmap`` at the end of a frame."""
    sizes: dict[Name, dict[Name, GraphSpec]] = Field(default_factory=dict)
    """Further input sizes, ``HxW`` -> graphs of that size; ``text`` is shared."""
    max_queries: int = Field(default=64, ge=1, le=1 << 12)
    """Largest number of queries at once."""
    reference: ReferenceSpec | None = None
    """Reference of the first size."""
    proofs: dict[Name, Proof] = Field(default_factory=dict)
    """Proofs by backend; written at export and by ``rvos-edge verify``."""
    tools: dict[Name, Line]
    checkpoint: Line
    checkpoint_sha256: Line
    network_id: Annotated[str, Field(max_length=64)] = ""
    """Hash of the network's weights: the same in float32, float16 and int8 bundles of a checkpoint."""
    licences: tuple[Line, ...]

    @property
    def identity(self) -> str:
        """The network that a taught query belongs to: ``network_id``, or the checkpoint's hash in older bundles."""
        return self.network_id or self.checkpoint_sha256

    @property
    def vision_graphs(self) -> tuple[str, ...]:
        """Graphs that read the frame, in the order in which they run."""
        return (FUSED_VISION_GRAPH,) if FUSED_VISION_GRAPH in self.graphs else VISION_GRAPHS

    @property
    def answer_graphs(self) -> tuple[str, ...]:
        """Graphs that answer the queries, in the order in which they run; the last one gives the margin."""
        return (GATING_GRAPH, BOUNDARY_GRAPH) if BOUNDARY_GRAPH in self.graphs else (GATING_GRAPH,)

    @property
    def has_presence(self) -> bool:
        """True if ``gating`` estimates the probability that each query is in the frame."""
        return any(spec.name == PRESENCE_OUTPUT for spec in self.graphs[GATING_GRAPH].outputs)

    @property
    def allows_bfloat16(self) -> bool:
        """True if any graph may be computed in bfloat16."""
        return any(spec.precision in ("bfloat16", "int8") for spec in self.graphs.values())


def at_size(manifest: Manifest, size: tuple[int, int], root: Path) -> Manifest:
    """Select an input size that the bundle was exported for; reference and proofs belong to the first size and are
    dropped for others.
    """
    if size == manifest.size:
        return manifest
    key = format_size(size)
    if key not in manifest.sizes:
        known = ", ".join([format_size(manifest.size), *manifest.sizes])
        raise UserError(f"{root} has no graphs for {key}; it was exported for {known}.")
    graphs = {TEXT_GRAPH: manifest.graphs[TEXT_GRAPH], **manifest.sizes[key]}
    return manifest.model_copy(update={"size": size, "graphs": graphs, "reference": None, "proofs": {}})


def frame_flops(graphs: Mapping[str, GraphSpec], iterations: int) -> int:
    """Floating-point operations of one frame with flow and one query."""
    runs = {**dict.fromkeys(HOST_GRAPHS, 0), "flow_step": iterations}
    return sum(spec.flops * runs.get(name, 1) for name, spec in graphs.items())


def read_manifest(root: Path) -> Manifest:
    """Read manifest.json without looking at the files beside it.

    Raises:
        UserError: The manifest is missing, damaged, too large or of another format version.
    """
    path = root / "manifest.json"
    # Inference engines take no names with bytes that are not UTF-8.
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", str(root.absolute())):
        raise UserError(f"bundle {str(root)!a} lies under a name that is not plain UTF-8; rename its folder.")
    try:
        if not path.is_file():
            raise UserError(f"{root} is not a bundle: it has no manifest.json; make one with 'rvos-edge export'.")
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path} is larger than {_MOST_BYTES >> 20} MiB and no manifest; export the bundle again.")
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document.get("format_version") if isinstance(document, dict) else None
        if version is not None and version not in range(OLDEST_VERSION, FORMAT_VERSION + 1):
            raise UserError(
                f"{path} has format version {_shorten(version)}, this runtime reads {OLDEST_VERSION} and "
                f"{FORMAT_VERSION}; export it again."
            )
        return Manifest.model_validate(document)
    except UserError:
        raise
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = _shorten(".".join(map(str, first["loc"])))
        raise UserError(f"{path}: '{where}': {_shorten(first['msg'].lower())}; export the bundle again.") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply; export the bundle again.") from error
    except (
        ValueError,
        OSError,
        RuntimeError,
    ) as error:  # no JSON, endless numbers, no UTF-8; unreadable, links in a ring
        raise UserError(f"{path} is not readable JSON ({_shorten(error)}); export the bundle again.") from error


def check_wiring(manifest: Manifest, root: Path) -> None:
    """Verify that every graph input is fed by a tensor of the same name, dtype and shape.

    Raises:
        UserError: A graph is missing, or a tensor is not fed or has another form than the runtime expects.
    """
    required = [TEXT_GRAPH, *manifest.vision_graphs, *(FLOW_GRAPHS if manifest.flow else ()), GATING_GRAPH]
    for name in required:
        if name not in manifest.graphs:
            raise UserError(f"{root}: graph '{name}' is missing from manifest.json; export the bundle again.")
    fed: dict[str, TensorSpec] = {}
    height, width = manifest.size
    fed[FRAME_INPUT] = TensorSpec(name=FRAME_INPUT, dtype="uint8", shape=(height, width, 3))
    for graph in manifest.graphs.values():
        for spec in graph.outputs:
            if fed.setdefault(spec.name, spec) != spec:
                raise UserError(f"{root}: two graphs produce different '{spec.name}'; export it again.")
    for state, source in manifest.states.items():
        if source not in fed:
            raise UserError(f"{root}: state '{state}' takes '{source}', which no graph produces; export it again.")
        # A state may also be written directly by a graph (hidden comes from flow_context, then from flow_step).
        written = fed.setdefault(state, fed[source].model_copy(update={"name": state}))
        if (written.dtype, written.shape) != (fed[source].dtype, fed[source].shape):
            raise UserError(f"{root}: state '{state}' cannot swap with '{source}', they differ; export it again.")
    for tensor, readers in ((FRAME_INPUT, manifest.vision_graphs), (FLOW_COORDS, ("flow_step",) * bool(manifest.flow))):
        if readers and tensor not in {spec.name for name in readers for spec in manifest.graphs[name].inputs}:
            raise UserError(f"{root}: no graph of {', '.join(readers)} reads '{tensor}'; export the bundle again.")
    for name, shape in _FORMS.items() if manifest.flow else [(MARGIN_OUTPUT, _FORMS[MARGIN_OUTPUT])]:
        if name not in fed:
            raise UserError(f"{root}: no graph produces '{name}'; export the bundle again.")
        found = fed[name]
        if len(found.shape) != len(shape) or found.shape[: len(shape) - 2] != shape[:-2] or "float" not in found.dtype:
            raise UserError(f"{root}: '{name}' is {found.dtype}{list(found.shape)}; export the bundle again.")
    if PRESENCE_OUTPUT in fed and fed[PRESENCE_OUTPUT].shape != (QUERIES,):
        raise UserError(f"{root}: 'presence' is {list(fed[PRESENCE_OUTPUT].shape)}; export the bundle again.")
    for name, graph in manifest.graphs.items():
        for spec in graph.inputs:
            if (name == TEXT_GRAPH and spec.name in TEXT_INPUTS) or (name == TEACH_GRAPH and spec.name in TEACH_INPUTS):
                continue
            source_spec = fed.get(spec.name)
            if source_spec is None:
                raise UserError(f"{root}: input '{spec.name}' of graph '{name}' is fed by nothing; export it again.")
            if name == TEACH_GRAPH:
                # It takes one query, in float32 whatever the other graphs compute in.
                shape = tuple(1 if dim == QUERIES else dim for dim in source_spec.shape)
                source_spec = source_spec.model_copy(update={"dtype": "float32", "shape": shape})
            if (source_spec.dtype, source_spec.shape) != (spec.dtype, spec.shape):
                raise UserError(
                    f"{root}: input '{spec.name}' of graph '{name}' is {spec.dtype}{list(spec.shape)} but is fed "
                    f"{source_spec.dtype}{list(source_spec.shape)}; export it again."
                )


def _shorten(value: object) -> str:
    """One short line for a message."""
    return " ".join(str(value).split())[:100]


def format_size(size: tuple[int, int]) -> str:
    """Format a size as in the options, height first: ``(288, 512)`` -> ``"288x512"``."""
    return f"{size[0]}x{size[1]}"


def parse_size(size: str) -> tuple[int, int]:
    """Parse a size written as in the options: ``"288x512"`` -> (288, 512).

    Raises:
        UserError: The text has another form.
    """
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", size)
    if not match:
        raise UserError(f"--size {size}: write it as HxW, height first, for example 288x512.")
    return int(match[1]), int(match[2])
