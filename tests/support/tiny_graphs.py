"""The ONNX graphs of the tiny bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rvos_edge.bundle import sha256_of
from rvos_edge.manifest import GraphSpec, TensorSpec

F32 = NDArray[np.float32]
CHANNELS = (4, 4, 4, 6)
WORDS = ["a", "the", "dog", "cat", "red", "ball", "on", "left", "right", "of", "big", "small", "car", "black", "person"]
_TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int64": TensorProto.INT64}


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


def make_graphs(size: tuple[int, int], flow: bool, teach: bool, presence: bool) -> dict[str, Parts]:
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


def write_graph(
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
        sha256=sha256_of(path),
        inputs=specs(inputs),
        outputs=specs(outputs),
        flops=0,
        weight_bytes=sum(len(constant.raw_data) for constant in graph.constants),
    )
