"""The bundle: a directory of ONNX graphs with a manifest; the contract between export and every runtime.

Opening a bundle verifies the format version, the hashes and that the wiring closes: every graph input is a frame
input, a state, a language vector or an output of the same name, dtype and shape.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rvos_edge.errors import UserError

FORMAT_VERSION = 4
OLDEST_VERSION = 2
"""Its bundles are read too: they have no ``boundary`` graph, and up to version 3 ``gating`` gives no ``presence``."""

Arithmetic = Literal["float32", "float16", "bfloat16"]
DType = Literal["uint8", "int64", "float16", "float32"]
Dim = int | str
"""A fixed extent, or a symbolic one: "Q" queries, "L" tokens."""

TEXT_GRAPH = "text"
TEXT_INPUTS = frozenset({"input_ids", "attention_mask"})
VISION_GRAPHS = ("backbone", "aspp")
FUSED_VISION_GRAPH = "vision"
"""In place of the two, where they were exported as one."""
FLOW_GRAPHS = ("flow_encode", "flow_context", "flow_step", "flow_up")
GATING_GRAPH = "gating"
BOUNDARY_GRAPH = "boundary"
"""Where there is one: draws what ``gating`` gives along the image's edges."""
QUERIES = "Q"
"""The symbolic extent of every tensor with one row per query."""
FRAME_INPUT = "image"
MARGIN_OUTPUT = "margin"
PRESENCE_OUTPUT = "presence"
"""Of ``gating``, where the network has a presence head: probability that what is asked for is in the frame."""
FLOW_OUTPUT = "flow"
FLOW_COORDS = "coords"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorSpec(_Strict):
    """Name, dtype and shape of a graph input or output."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...]


class Parity(_Strict):
    """The worst difference of a graph's outputs from those of PyTorch in float32 for the same inputs."""

    max_abs: float
    relative_l2: float
    cosine: float


class Proof(_Strict):
    """What one backend was found to compute: each graph by itself, and the chain on consecutive frames."""

    backend: str
    """Backend, version and device."""
    note: str = ""
    """What the figures do not cover, such as float16 nodes that ran in float32."""
    graphs: dict[str, Parity]
    mask_iou: float | None = Field(ge=0, le=1)
    """IoU of the masks with PyTorch's over ``frames`` frames; None where only the graphs were compared."""
    frames: int
    source: str


class GraphSpec(_Strict):
    """One ONNX graph of the bundle."""

    file: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: Arithmetic = "float32"
    """What it computes in. The file states float32 or float16; bfloat16 is a float32 file and leave to be narrower."""
    weights: Literal["float32", "float16", "int8"] = "float32"
    """How the weights are stored; they are widened to what the file computes in when the graph is loaded."""
    flops: int = Field(ge=0)
    """2 x multiply-add of one run (one query for ``gating``, 20 tokens for ``text``)."""
    weight_bytes: int = Field(ge=0)


class TextSpec(_Strict):
    """What the tokenizer must do."""

    tokenizer: str = "tokenizer.json"
    sha256: str
    max_tokens: int = Field(gt=2)
    """Longest query in tokens, [CLS] and [SEP] included."""


class FlowSpec(_Strict):
    """Flow defaults; the runtime may change the iterations, the rest is fixed by the graphs."""

    iterations: int = Field(ge=1)
    scale: int = Field(ge=1)
    """The flow is computed on the image reduced by this factor; the ``flow`` tensor is in pixels of the image."""


class ReferenceSpec(_Strict):
    """Tensors of PyTorch in float32 that any backend can be compared with (``verify``)."""

    file: str
    sha256: str


class Manifest(_Strict):
    """manifest.json: everything a runtime needs to know about the graphs beside it."""

    format_version: int
    name: str
    preset: str
    trained: bool = True
    """False for a network put together from the weights of its parts: its masks mean nothing."""
    network: dict[str, str | int | float | bool | list[int]]
    size: tuple[int, int]
    """Height and width of ``image``, uint8 [H,W,3] BGR; normalisation is inside the graphs."""
    stride: int
    """Pixels of ``image`` per pixel of ``margin``."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    text: TextSpec
    flow: FlowSpec | None
    graphs: dict[str, GraphSpec]
    states: dict[str, str]
    """Input -> output whose buffers swap after a run: ``fmap_prev`` takes ``fmap`` at the end of a frame."""
    sizes: dict[str, dict[str, GraphSpec]] = {}
    """Further input sizes, ``HxW`` -> its own graphs; ``text`` is shared."""
    max_queries: int = Field(default=64, ge=1)
    """Most queries that engines with fixed profiles are made for."""
    reference: ReferenceSpec | None = None
    """For the size of ``size``."""
    proofs: dict[str, Proof] = {}
    """By backend; written at export and by ``verify``."""
    tools: dict[str, str]
    checkpoint: str
    checkpoint_sha256: str
    licences: tuple[str, ...]

    @property
    def vision_graphs(self) -> tuple[str, ...]:
        """The graphs that see a frame, in the order in which they run."""
        return (FUSED_VISION_GRAPH,) if FUSED_VISION_GRAPH in self.graphs else VISION_GRAPHS

    @property
    def answer_graphs(self) -> tuple[str, ...]:
        """The graphs that answer the queries, in the order in which they run; the last one gives the margin."""
        return (GATING_GRAPH, BOUNDARY_GRAPH) if BOUNDARY_GRAPH in self.graphs else (GATING_GRAPH,)

    @property
    def has_presence(self) -> bool:
        """Whether ``gating`` says how probably each query is in the frame."""
        return any(spec.name == PRESENCE_OUTPUT for spec in self.graphs[GATING_GRAPH].outputs)

    @property
    def allows_bfloat16(self) -> bool:
        """Whether any graph may be computed in bfloat16."""
        return any(spec.precision == "bfloat16" for spec in self.graphs.values())


@dataclass(frozen=True)
class Bundle:
    """An opened, verified bundle.

    Attributes:
        path: The directory.
        manifest: Its manifest.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, *, size: tuple[int, int] | None = None) -> Bundle:
        """Read and verify a bundle directory: the files of one input size, which are what a runtime loads.

        Args:
            path: The directory.
            size: Height and width of the input, one of those it was exported for; None for its first.

        Raises:
            UserError: It is missing, damaged, of another format version, lacks the size, or its wiring does not close.
        """
        root = Path(path)
        manifest = read_manifest(root)
        if size is not None:
            manifest = at_size(manifest, size, root)
        for name, graph in manifest.graphs.items():
            check_file(root, graph.file, graph.sha256, f"graph '{name}'")
        check_file(root, manifest.text.tokenizer, manifest.text.sha256, "the tokenizer")
        check_wiring(manifest, root)
        return cls(root, manifest)

    def graph_path(self, name: str) -> Path:
        """Path of a graph's ONNX file."""
        return self.path / self.manifest.graphs[name].file

    @property
    def tokenizer_path(self) -> Path:
        """Path of tokenizer.json."""
        return self.path / self.manifest.text.tokenizer

    @property
    def fingerprint(self) -> str:
        """sha256 over the hashes of all files: the key of anything computed with this bundle."""
        hashes = [graph.sha256 for _, graph in sorted(self.manifest.graphs.items())]
        return hashlib.sha256("".join([*hashes, self.manifest.text.sha256]).encode()).hexdigest()


def at_size(manifest: Manifest, size: tuple[int, int], root: Path) -> Manifest:
    """The manifest as one of its other input sizes sees it; its own reference and proofs are for ``size`` alone.

    Raises:
        UserError: The bundle was not exported for that size.
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
    """FLOPs of one frame with flow and one query."""
    runs = {TEXT_GRAPH: 0, "flow_step": iterations}
    return sum(spec.flops * runs.get(name, 1) for name, spec in graphs.items())


def format_size(size: tuple[int, int]) -> str:
    """``(288, 512)`` -> ``"288x512"``: height first, as in the options."""
    return f"{size[0]}x{size[1]}"


def shipped_bundle() -> Path:
    """Directory of the ``edge`` bundle that comes with the package."""
    return Path(__file__).parent / "bundles" / "edge"


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_wiring(manifest: Manifest, root: Path) -> None:
    """Verify that every graph input is fed by a tensor of the same name, dtype and shape.

    Raises:
        UserError: A graph is missing or a tensor is not fed; the sentence names it.
    """
    required = [TEXT_GRAPH, *manifest.vision_graphs, *(FLOW_GRAPHS if manifest.flow else ()), GATING_GRAPH]
    for name in required:
        if name not in manifest.graphs:
            raise UserError(f"{root}: graph '{name}' is missing from manifest.json; export the bundle again.")
    fed: dict[str, TensorSpec] = {}
    height, width = manifest.size
    fed[FRAME_INPUT] = TensorSpec(name=FRAME_INPUT, dtype="uint8", shape=(height, width, 3))
    for graph in manifest.graphs.values():
        fed.update({spec.name: spec for spec in graph.outputs})
    for state, source in manifest.states.items():
        if source not in fed:
            raise UserError(f"{root}: state '{state}' takes '{source}', which no graph produces; export it again.")
        # A state may also be written directly by a graph (hidden comes from flow_context, then from flow_step).
        written = fed.setdefault(state, fed[source].model_copy(update={"name": state}))
        if (written.dtype, written.shape) != (fed[source].dtype, fed[source].shape):
            raise UserError(f"{root}: state '{state}' cannot swap with '{source}', they differ; export it again.")
    for name in (MARGIN_OUTPUT, *((FLOW_OUTPUT, FLOW_COORDS) if manifest.flow else ())):
        if name not in fed:
            raise UserError(f"{root}: no graph produces '{name}'; export the bundle again.")
    for name, graph in manifest.graphs.items():
        for spec in graph.inputs:
            if name == TEXT_GRAPH and spec.name in TEXT_INPUTS:
                continue
            source_spec = fed.get(spec.name)
            if source_spec is None:
                raise UserError(f"{root}: input '{spec.name}' of graph '{name}' is fed by nothing; export it again.")
            if (source_spec.dtype, source_spec.shape) != (spec.dtype, spec.shape):
                raise UserError(
                    f"{root}: input '{spec.name}' of graph '{name}' is {spec.dtype}{list(spec.shape)} but is fed "
                    f"{source_spec.dtype}{list(source_spec.shape)}; export it again."
                )


def read_manifest(root: Path) -> Manifest:
    """manifest.json alone, without looking at the files beside it.

    Raises:
        UserError: It is missing, unreadable or of another format version.
    """
    path = root / "manifest.json"
    if not path.is_file():
        raise UserError(f"{root} is not a bundle: it has no manifest.json; make one with 'rvos-edge export'.")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document.get("format_version") if isinstance(document, dict) else None
        if version is not None and version not in range(OLDEST_VERSION, FORMAT_VERSION + 1):
            raise UserError(
                f"{path} has format version {version}, this runtime reads {OLDEST_VERSION} to {FORMAT_VERSION}; "
                "export it again."
            )
        return Manifest.model_validate(document)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); export the bundle again.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: '{where}': {first['msg'].lower()}; export the bundle again.") from error


def check_file(root: Path, name: str, sha256: str, what: str) -> None:
    """Verify that a file of a bundle lies inside it and is what the manifest says.

    Raises:
        UserError: It is not; ``what`` names it in the sentence.
    """
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{root}: {what} names '{name}', which leaves the bundle; do not use this bundle.")
    if not path.is_file():
        raise UserError(f"{root}: {what} ({name}) is missing; copy the whole bundle or export it again.")
    if sha256_of(path) != sha256:
        raise UserError(f"{path} does not match its sha256 in manifest.json: it is damaged; copy or export it again.")


def parse_size(size: str) -> tuple[int, int]:
    """``"288x512"`` -> (288, 512).

    Raises:
        UserError: It is written otherwise.
    """
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", size)
    if not match:
        raise UserError(f"--size {size}: write it as HxW, height first, for example 288x512.")
    return int(match[1]), int(match[2])
