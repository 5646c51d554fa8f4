"""Weights are narrowed on disk and come back close to what they were."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from rvos_edge.errors import UserError  # noqa: E402
from rvos_edge.export.weights import parse_storage, storage_of, store_weights, weight_bytes, widen_weights  # noqa: E402


def _matmul(weight: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, weight.shape[1]])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(("storage", "ratio", "tolerance"), [("float16", 2, 1e-3), ("int8", 4, 2e-2)])
def test_narrow_weights_take_less_and_compute_almost_the_same(storage: str, ratio: int, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    # Columns of very different size: one scale for the whole matrix would lose the small ones.
    weight = (rng.normal(size=(64, 32)) * np.logspace(-3, 1, 32)).astype(np.float32)
    x = rng.normal(size=(1, 64)).astype(np.float32)
    model = _matmul(weight)
    full = weight_bytes(model)
    expected = _run(model, x)
    store_weights(model, storage)
    onnx.checker.check_model(model)
    actual = _run(model, x)
    assert weight_bytes(model) <= full / ratio + 4 * 32
    assert np.abs((actual - expected) / np.abs(expected).clip(1e-4)).max() < tolerance * 10
    assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < tolerance


def test_small_tensors_and_float32_stay() -> None:
    model = _matmul(np.ones((4, 4), np.float32))
    for storage in ("float32", "int8"):
        store_weights(model, storage)
        assert [item.data_type for item in model.graph.initializer] == [TensorProto.FLOAT]


def _lookup(table: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["rows"]), helper.make_node("Neg", ["rows"], ["y"])],
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["Q", "L"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["Q", "L", table.shape[1]])],
        [numpy_helper.from_array(table, "table")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _rows(model: onnx.ModelProto, ids: list[list[int]]) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": np.array(ids)})[0]


def test_a_table_of_rows_takes_four_bits_and_comes_back() -> None:
    rng = np.random.default_rng(0)
    table = (rng.normal(size=(4096, 256)) * np.logspace(-3, 1, 4096)[:, None]).astype(np.float32)
    table[7] = 0
    ids = [[0, 7, 9], [4095, 2000, 1]]
    model = _lookup(table)
    store_weights(model, "int8", small_tables=True)
    assert weight_bytes(model) == 4096 * (256 // 2 + 4 * 2) + 2 * 4 + 3 * 8
    stored = _rows(model, ids)
    for row, expected in zip(-stored.reshape(-1, 256), table[np.ravel(ids)], strict=True):
        # Half a step where the largest value is -8 steps; a whole one for a value as large of the other sign.
        assert np.abs(row - expected).max() <= 1.001 * np.abs(expected).max() / 8
        assert np.linalg.norm(row - expected) <= 0.15 * np.linalg.norm(expected)
    widen_weights(model)
    assert [node.op_type for node in model.graph.node] == ["Gather", "Neg"]
    np.testing.assert_array_equal(_rows(model, ids), stored)
    store_weights(model, "int8", small_tables=True)
    np.testing.assert_array_equal(_rows(model, ids), stored)


@pytest.mark.parametrize(("rows", "storage"), [(512, "int8"), (4096, "float16")])
def test_a_small_table_keeps_eight_bits_and_float16_is_what_was_asked(rows: int, storage: str) -> None:
    model = _lookup(np.ones((rows, 256), np.float32))
    store_weights(model, storage, small_tables=True)
    assert weight_bytes(model) == rows * (256 + 4 if storage == "int8" else 2 * 256)


def test_a_small_bundle_rounds_what_queries_learn_with() -> None:
    assert storage_of(weights=None, precision="float32")["teach"] == "float32"
    assert storage_of(weights=None, precision="float32", small=True)["teach"] == "float16"
    assert storage_of(weights="float32", precision="float32", small=True)["teach"] == "float32", "as was asked"


def test_an_unknown_storage_is_refused() -> None:
    assert parse_storage("float16") == "float16"
    with pytest.raises(UserError, match="--weights int4: choose one of float32, float16, int8"):
        parse_storage("int4")
