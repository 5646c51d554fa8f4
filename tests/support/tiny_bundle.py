"""A complete bundle of eight small graphs made without PyTorch, and the same arithmetic in NumPy to test against.

The network means nothing, but every wire matters: each output depends on each input, the flow on the previous frame,
the margin on the flow and on the words.

Example:
    >>> path = write_tiny_bundle(tmp_path / "tiny")
    >>> segmenter = rvos_edge.open(path)
    >>> reference = Reference(path)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from rvos_edge.manifest import FORMAT_VERSION, FlowSpec, GraphSpec, Manifest, TensorSpec, TextSpec, read_manifest

F32 = NDArray[np.float32]
ITERATIONS = 3
MAX_TOKENS = 16
CHANNELS = (4, 4, 4, 6)
WORDS = ["a", "the", "dog", "cat", "red", "ball", "on", "left", "right", "of", "big", "small", "car", "black", "person"]
_TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int64": TensorProto.INT64}


def write_tiny_bundle(
    directory: Path,
    *,
    size: tuple[int, int] = (64, 96),
    flow: bool = True,
    teach: bool = False,
    presence: bool = False,
) -> Path:
    """Write the bundle and return its directory.

    Args:
        directory: Made when missing.
        size: Height and width of the input, multiples of 32.
        flow: False for a bundle without flow graphs.
        teach: With the graph with which queries learn: cross-entropy of the margin, and its gradients.
        presence: With the output ``presence`` of ``gating``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _tokenizer().save(str(directory / "tokenizer.json"))
    graphs = {
        name: _write_graph(directory, name, *parts) for name, parts in _graphs(size, flow, teach, presence).items()
    }
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name="tiny",
        preset="test",
        network={"fusion": "hierarchical", "flow": "both" if flow else "none"},
        size=size,
        stride=4,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        text=TextSpec(sha256=_sha256(directory / "tokenizer.json"), max_tokens=MAX_TOKENS),
        flow=FlowSpec(iterations=ITERATIONS, scale=1) if flow else None,
        graphs=graphs,
        states={"fmap_prev": "fmap", "hidden": "hidden_next", "coords": "coords_next"} if flow else {},
        tools={"onnx": onnx.__version__},
        checkpoint="none",
        checkpoint_sha256="0" * 64,
        network_id="1" * 32,
        licences=("Apache-2.0",),
    )
    write_manifest(directory, manifest)
    return directory


def write_two_sizes(folder: Path) -> Path:
    """A bundle of 64x96 that also has graphs for 96x128."""
    small = write_tiny_bundle(folder)
    large = read_manifest(write_tiny_bundle(folder / "96x128", size=(96, 128)))
    graphs = {n: s.model_copy(update={"file": f"96x128/{s.file}"}) for n, s in large.graphs.items() if n != "text"}
    write_manifest(small, read_manifest(small).model_copy(update={"sizes": {"96x128": graphs}}))
    return small


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write manifest.json."""
    (directory / "manifest.json").write_text(manifest.model_dump_json(indent=1), encoding="utf-8")


def weights() -> dict[str, F32]:
    """Every weight of the network, always the same."""
    rng = np.random.default_rng(7)

    def make(*shape: int) -> F32:
        return rng.normal(0, 0.7, shape).astype(np.float32)

    c1, c2, c3, c4 = CHANNELS
    return {
        "w_c2": make(c1, 3),
        "w_c3": make(c2, 3),
        "w_c4": make(c3, c2),
        "w_c5": make(5, c3),
        "w_v4": make(c4, 5),
        "w_fmap": make(4, 3),
        "w_hidden": make(4, 3),
        "w_context": make(4, 3),
        "w_step": make(2, 4),
        "table": make(len(WORDS) + 4, 8),
        **{f"w_lang{i + 1}": make(8, c) for i, c in enumerate(CHANNELS)},
    }


class Reference:
    """The chain in NumPy, with a warm start of the flow; ``iterations`` is that of FlowOptions."""

    def __init__(self, *, size: tuple[int, int] = (64, 96), iterations: int = ITERATIONS) -> None:
        self.size, self.iterations = size, iterations
        self.w = weights()
        self.reset()

    def reset(self) -> None:
        """Forget the previous frame."""
        self.fmap_prev: F32 | None = None
        self.coords: F32 | None = None
        self.field = np.zeros((2, *self.size), np.float32)

    def step(self, frame: NDArray[np.uint8], queries: Sequence[str], *, flow: str = "run") -> tuple[F32, F32]:
        """Margins [Q,h,w] and flow [2,H,W] of the next frame; ``flow`` is "run", "keep" or "zero"."""
        w = self.w
        height, width = self.size
        image = cv2.resize(frame, (width, height)).astype(np.float32).transpose(2, 0, 1) / np.float32(255)
        quarter, eighth = _pool(image, 4), _pool(image, 8)
        c2, c3 = _mix(w["w_c2"], quarter), np.maximum(_mix(w["w_c3"], eighth), 0)
        c4 = _mix(w["w_c4"], c3)
        v4 = np.maximum(_mix(w["w_v4"], _mix(w["w_c5"], c4)), 0)
        field = self._flow(eighth, flow)
        motion = _pool(np.abs(field - field.mean((1, 2), keepdims=True)).mean(0, keepdims=True), 4)[0]
        margins = []
        for query in queries:
            l1, l2, l3, l4 = self.text(query)
            coarse = np.tensordot(l2, c3, 1) + np.tensordot(l3, c4, 1) + np.tensordot(l4, v4, 1)
            margin = np.tensordot(l1, c2, 1) + _repeat(coarse, 2) + 0.1 * motion * l1.sum()
            margins.append(margin - margin.mean())
        return np.stack(margins), field

    def text(self, query: str) -> list[F32]:
        """lang1 .. lang4."""
        ids = _tokenizer().encode(query).ids
        mean = self.w["table"][ids].mean(0)
        return [mean @ self.w[f"w_lang{i}"] for i in range(1, 5)]

    def _flow(self, eighth: F32, mode: str) -> F32:
        w = self.w
        height, width = eighth.shape[1:]
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
        fmap, previous = _mix(w["w_fmap"], eighth), self.fmap_prev
        self.fmap_prev = fmap
        if mode == "keep":
            return self.field
        if previous is None or mode == "zero":
            self.coords = None
            self.field = np.zeros((2, *self.size), np.float32)
            return self.field
        hidden, context = (np.tanh(_mix(w["w_hidden"], eighth)), np.maximum(_mix(w["w_context"], eighth), 0))
        corr = ((fmap * previous).sum(0), (fmap - previous).sum(0), previous.max(0), fmap.mean(0))
        coords = self.coords if self.coords is not None else grid
        for _ in range(self.iterations):
            hidden = np.tanh(0.5 * hidden + 0.3 * context + corr[0])
            coords = coords + 0.2 * np.sin(coords) + _mix(w["w_step"], hidden) + np.stack([corr[1], corr[2] * corr[3]])
        self.coords = coords
        self.field = _repeat(8 * (coords - grid) + hidden[:2], 8)
        return self.field


def _mix(weight: F32, tensor: F32) -> F32:
    return np.tensordot(weight, tensor, 1)


def _pool(tensor: F32, n: int) -> F32:
    c, h, w = tensor.shape
    return tensor.reshape(c, h // n, n, w // n, n).mean((2, 4))


def _repeat(tensor: F32, n: int) -> F32:
    return tensor.repeat(n, -1).repeat(n, -2)


def _tokenizer() -> Tokenizer:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    # As exported tokenizers often have it; the runtime must not cut silently.
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


Shapes = dict[str, tuple[str, tuple[int | str, ...]]]
Parts = tuple["_Graph", list[str], list[str], Shapes]


class _Graph:
    """Collects nodes; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def mix(self, weight: F32, tensor: str, out: str | None = None) -> str:
        return self.add("Conv", tensor, self.const(weight[:, :, None, None]), out=out)

    def pool(self, tensor: str, n: int) -> str:
        return self.add("AveragePool", tensor, kernel_shape=[n, n], strides=[n, n])

    def repeat(self, tensor: str, n: int, out: str | None = None) -> str:
        # "asymmetric" nearest with floor is exact repetition.
        return self.add(
            "Resize",
            tensor,
            "",
            self.const([1, 1, n, n]),
            out=out,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def image(self) -> str:
        floats = self.add("Cast", "image", to=TensorProto.FLOAT)
        planes = self.add("Unsqueeze", self.add("Transpose", floats, perm=[2, 0, 1]), self.const([0], np.int64))
        return self.add("Div", planes, self.const(255))

    def reduce(self, op: str, tensor: str, axes: list[int], out: str | None = None, keepdims: int = 1) -> str:
        return self.add(op, tensor, self.const(axes, np.int64), out=out, keepdims=keepdims)


def _graphs(size: tuple[int, int], flow: bool, teach: bool, presence: bool) -> dict[str, Parts]:
    h, w = size
    c1, c2, c3, c4 = CHANNELS
    grid, quarter = (h // 8, w // 8), (h // 4, w // 4)
    shapes: Shapes = {"image": ("uint8", (h, w, 3)), "margin": ("float32", ("Q", *quarter))}
    shapes |= dict.fromkeys(("input_ids", "attention_mask"), ("int64", (1, "L")))
    shapes |= {f"lang{i + 1}": ("float32", ("Q", c)) for i, c in enumerate(CHANNELS)}
    features = {"c2": (c1, *quarter), "c3": (c2, *grid), "c4": (c3, *grid), "c5": (5, *grid), "v4": (c4, *grid)}
    features |= dict.fromkeys(("fmap", "fmap_prev", "hidden", "hidden_next", "context"), (4, *grid))
    features |= {f"corr{i}": (1, *grid) for i in range(4)}
    features |= {"coords": (2, *grid), "coords_next": (2, *grid), "flow": (2, h, w)}
    shapes |= {name: ("float32", (1, *shape)) for name, shape in features.items()}
    shapes |= {"presence": ("float32", ("Q",)), "loss": ("float32", (1,))}
    shapes |= dict.fromkeys(("target", "weight"), ("float32", (1, 1, *quarter)))
    shapes |= {f"grad{i + 1}": ("float32", (1, c)) for i, c in enumerate(CHANNELS)}
    langs, corrs = [f"lang{i}" for i in range(1, 5)], [f"corr{i}" for i in range(4)]
    gating_inputs = ["c2", "c3", "c4", "v4", *(["flow"] if flow else []), *langs]
    parts: dict[str, Parts] = {
        "text": (_text(), ["input_ids", "attention_mask"], langs, shapes),
        "backbone": (_backbone(), ["image"], ["c2", "c3", "c4", "c5"], shapes),
        "aspp": (_aspp(), ["c5"], ["v4"], shapes),
        "gating": (_gating(flow, presence), gating_inputs, ["margin", *(["presence"] if presence else [])], shapes),
    }
    if teach:
        one = shapes | {name: ("float32", (1, *shapes[name][1][1:])) for name in langs}
        grads = [f"grad{i}" for i in range(1, 5)]
        parts["teach"] = (_teach(flow), [*gating_inputs, "target", "weight"], ["loss", *grads], one)
    if flow:
        step_inputs = [*corrs, "hidden", "context", "coords"]
        parts |= {
            "flow_encode": (_flow_encode(), ["image"], ["fmap"], shapes),
            "flow_context": (_flow_context(), ["image", "fmap", "fmap_prev"], ["hidden", "context", *corrs], shapes),
            "flow_step": (_flow_step(), step_inputs, ["hidden_next", "coords_next"], shapes),
            "flow_up": (_flow_up(grid), ["hidden", "coords"], ["flow"], shapes),
        }
    return parts


def _text() -> _Graph:
    g, w = _Graph(), weights()
    embedded = g.add("Gather", g.const(w["table"]), "input_ids")  # [1,L,8]
    mask = g.add("Unsqueeze", g.add("Cast", "attention_mask", to=TensorProto.FLOAT), g.const([2], np.int64))
    total = g.reduce("ReduceSum", g.add("Mul", embedded, mask), [1], keepdims=0)
    mean = g.add("Div", total, g.reduce("ReduceSum", mask, [1], keepdims=0))
    for i in range(1, 5):
        g.add("MatMul", mean, g.const(w[f"w_lang{i}"]), out=f"lang{i}")
    return g


def _backbone() -> _Graph:
    g, w = _Graph(), weights()
    image = g.image()
    g.mix(w["w_c2"], g.pool(image, 4), "c2")
    c3 = g.add("Relu", g.mix(w["w_c3"], g.pool(image, 8)), out="c3")
    g.mix(w["w_c5"], g.mix(w["w_c4"], c3, "c4"), "c5")
    return g


def _aspp() -> _Graph:
    g = _Graph()
    g.add("Relu", g.mix(weights()["w_v4"], "c5"), out="v4")
    return g


def _flow_encode() -> _Graph:
    g = _Graph()
    g.mix(weights()["w_fmap"], g.pool(g.image(), 8), "fmap")
    return g


def _flow_context() -> _Graph:
    g, w = _Graph(), weights()
    eighth = g.pool(g.image(), 8)
    g.add("Tanh", g.mix(w["w_hidden"], eighth), out="hidden")
    g.add("Relu", g.mix(w["w_context"], eighth), out="context")
    g.reduce("ReduceSum", g.add("Mul", "fmap", "fmap_prev"), [1], "corr0")
    g.reduce("ReduceSum", g.add("Sub", "fmap", "fmap_prev"), [1], "corr1")
    g.reduce("ReduceMax", "fmap_prev", [1], "corr2")
    g.reduce("ReduceMean", "fmap", [1], "corr3")
    return g


def _flow_step() -> _Graph:
    g = _Graph()
    mixed = g.add("Add", g.add("Mul", "hidden", g.const(0.5)), g.add("Mul", "context", g.const(0.3)))
    hidden = g.add("Tanh", g.add("Add", mixed, "corr0"), out="hidden_next")
    lookup = g.add("Concat", "corr1", g.add("Mul", "corr2", "corr3"), axis=1)
    delta = g.add("Add", g.mix(weights()["w_step"], hidden), lookup)
    wave = g.add("Mul", g.add("Sin", "coords"), g.const(0.2))
    g.add("Sum", "coords", wave, delta, out="coords_next")
    return g


def _flow_up(grid: tuple[int, int]) -> _Graph:
    g = _Graph()
    identity = g.const(np.stack(np.meshgrid(np.arange(grid[1]), np.arange(grid[0])))[None])
    eight = g.add("Mul", g.add("Sub", "coords", identity), g.const(8))
    first = g.add("Slice", "hidden", *(g.const([k], np.int64) for k in (0, 2, 1)))
    g.repeat(g.add("Add", eight, first), 8, "flow")
    return g


def _gating(flow: bool, presence: bool) -> _Graph:
    g = _Graph()
    g.add("Squeeze", _margin(g, flow), g.const([1], np.int64), out="margin")
    if presence:
        # How far the words agree with what is there, from 0 to 1.
        agreement = g.add("Mul", g.reduce("ReduceMean", "c2", [2, 3], keepdims=0), "lang1")
        above = g.add("Sub", g.reduce("ReduceSum", agreement, [1], keepdims=0), g.const(0.7))
        g.add("Sigmoid", g.add("Mul", above, g.const(8.0)), out="presence")
    return g


def _teach(flow: bool) -> _Graph:
    """Weighted cross-entropy of the margin with the target, and its gradients, as by hand."""
    g = _Graph()
    margin = _margin(g, flow)
    count = g.reduce("ReduceSum", "weight", [1, 2, 3])
    wrong = g.add("Sub", g.add("Softplus", margin), g.add("Mul", "target", margin))
    total = g.reduce("ReduceSum", g.add("Mul", "weight", wrong), [1, 2, 3])
    g.add("Reshape", g.add("Div", total, count), g.const([1], np.int64), out="loss")
    gap = g.add("Div", g.add("Mul", "weight", g.add("Sub", g.add("Sigmoid", margin), "target")), count)
    back = g.add("Sub", gap, g.reduce("ReduceMean", gap, [2, 3]))  # the margin is centred
    coarse = g.add("Mul", g.pool(back, 2), g.const(4))
    own = g.reduce("ReduceSum", g.add("Mul", "c2", back), [2, 3], keepdims=0)
    if flow:
        moved = g.reduce("ReduceSum", g.add("Mul", _motion(g), back), [2, 3], keepdims=0)
        own = g.add("Add", own, g.add("Mul", moved, g.const(0.1)))
    g.add("Identity", own, out="grad1")
    for level, name in (("c3", "grad2"), ("c4", "grad3"), ("v4", "grad4")):
        g.reduce("ReduceSum", g.add("Mul", level, coarse), [2, 3], name, keepdims=0)
    return g


def _motion(g: _Graph) -> str:
    centred = g.add("Sub", "flow", g.reduce("ReduceMean", "flow", [2, 3]))
    return g.pool(g.reduce("ReduceMean", g.add("Abs", centred), [1]), 4)


def _margin(g: _Graph, flow: bool) -> str:
    def attend(level: str, lang: str) -> str:
        column = g.add("Unsqueeze", lang, g.const([2, 3], np.int64))
        return g.reduce("ReduceSum", g.add("Mul", level, column), [1])

    coarse = g.add("Sum", attend("c3", "lang2"), attend("c4", "lang3"), attend("v4", "lang4"))
    margin = g.add("Add", attend("c2", "lang1"), g.repeat(coarse, 2))
    if flow:
        motion = _motion(g)
        weight = g.add("Unsqueeze", g.reduce("ReduceSum", "lang1", [1]), g.const([2, 3], np.int64))
        margin = g.add("Add", margin, g.add("Mul", g.add("Mul", motion, g.const(0.1)), weight))
    return g.add("Sub", margin, g.reduce("ReduceMean", margin, [2, 3]))


def _write_graph(
    directory: Path, name: str, graph: _Graph, inputs: list[str], outputs: list[str], shapes: Shapes
) -> GraphSpec:
    def info(tensor: str, *, single: bool) -> Any:
        dtype, shape = shapes[tensor]
        # The text graph encodes one query at a time.
        dims = [1 if single and dim == "Q" else dim for dim in shape]
        return helper.make_tensor_value_info(tensor, _TYPES[dtype], dims)

    single = name == "text"
    proto = helper.make_graph(
        graph.nodes,
        name,
        [info(tensor, single=single) for tensor in inputs],
        [info(tensor, single=single) for tensor in outputs],
        graph.constants,
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    path = directory / f"{name}.onnx"
    onnx.save(model, str(path))

    def specs(names: list[str]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name=n, dtype=shapes[n][0], shape=shapes[n][1]) for n in names)

    return GraphSpec(
        file=path.name,
        sha256=_sha256(path),
        inputs=specs(inputs),
        outputs=specs(outputs),
        flops=0,
        weight_bytes=sum(len(constant.raw_data) for constant in graph.constants),
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
