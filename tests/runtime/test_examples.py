"""The example for ROS 2, against small stand-ins of rclpy."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rvos_edge

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.name)
def test_examples_compile(path: Path) -> None:
    compile(path.read_text(encoding="utf-8"), str(path), "exec")


class FakePublisher:
    def __init__(self, listeners: int) -> None:
        self.sent: list[Any] = []
        self.listeners = listeners

    def publish(self, message: Any) -> None:
        self.sent.append(message)

    def get_subscription_count(self) -> int:
        return self.listeners


class FakeNode:
    """Stand-in for the part of rclpy's Node that the example uses."""

    parameters: dict[str, object] = {}  # noqa: RUF012  (set by the tests)

    def __init__(self, name: str) -> None:
        self.name = name
        self.publishers: dict[str, FakePublisher] = {}
        self.subscriptions: dict[str, tuple[Any, Any, Any]] = {}
        self.log: list[tuple[str, str]] = []

    def declare_parameter(self, name: str, default: object) -> SimpleNamespace:
        return SimpleNamespace(value=self.parameters.get(name, default))

    def create_publisher(self, kind: Any, topic: str, qos: Any) -> FakePublisher:
        self.publishers[topic] = FakePublisher(listeners=topic == "masks")
        return self.publishers[topic]

    def create_subscription(self, kind: Any, topic: str, callback: Any, qos: Any) -> None:
        self.subscriptions[topic] = (kind, callback, qos)

    def get_logger(self) -> SimpleNamespace:
        def say(level: str) -> Any:
            return lambda message, **options: self.log.append((level, message))

        return SimpleNamespace(info=say("info"), error=say("error"))


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example, loaded with stand-ins of ROS."""

    def fake(name: str, **content: Any) -> ModuleType:
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    policy = SimpleNamespace(KEEP_LAST="keep last", BEST_EFFORT="best effort")
    fake("rclpy")
    fake("rclpy.executors", ExternalShutdownException=type("ExternalShutdownException", (Exception,), {}))
    fake("rclpy.node", Node=FakeNode)
    fake("rclpy.qos", QoSHistoryPolicy=policy, QoSReliabilityPolicy=policy, QoSProfile=SimpleNamespace)
    fake("sensor_msgs")
    fake("sensor_msgs.msg", Image=SimpleNamespace)
    fake("std_msgs")
    fake("std_msgs.msg", String=SimpleNamespace)
    return load(EXAMPLES / "ros2_node.py")


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def message(image: np.ndarray, encoding: str, *, padding: int = 0) -> SimpleNamespace:
    """An image message whose rows end in `padding` bytes."""
    rows = image.reshape(image.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    height, width = image.shape[:2]
    return SimpleNamespace(
        header="header", height=height, width=width, encoding=encoding, step=padded.shape[1], data=padded.tobytes()
    )


PICTURE = np.random.default_rng(2).integers(0, 255, (48, 66, 3), np.uint8)


@pytest.mark.parametrize(
    ("encoding", "image"),
    [
        ("bgr8", PICTURE),
        ("rgb8", PICTURE[..., ::-1]),
        ("bgra8", np.dstack([PICTURE, PICTURE[..., :1]])),
        ("rgba8", np.dstack([PICTURE[..., ::-1], PICTURE[..., :1]])),
    ],
)
@pytest.mark.parametrize("padding", [0, 2])
def test_ros_images_are_read(ros: Any, encoding: str, image: np.ndarray, padding: int) -> None:
    assert (ros.to_bgr(message(image, encoding, padding=padding)) == PICTURE).all()


def test_ros_grey_images_are_read(ros: Any) -> None:
    assert (ros.to_bgr(message(PICTURE[..., 0], "mono8")) == PICTURE[..., :1]).all()


def test_ros_node_segments_and_takes_queries(ros: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = ["the red ball", "a black car"]
    monkeypatch.setattr(FakeNode, "parameters", {"bundle": str(tiny), "backend": "onnxruntime", "queries": queries})
    node = ros.SegmentNode()
    kind, on_image, qos = node.subscriptions["image"]
    assert (kind, qos.depth, qos.reliability) == (ros.Image, 1, "best effort")
    on_image(message(PICTURE, "bgr8"))
    (sent,) = node.publishers["masks"].sent
    assert (sent.header, sent.encoding, sent.height, sent.width, sent.step) == ("header", "mono8", 48, 66, 66)
    assert node.publishers["overlay"].sent == []
    segmenter = rvos_edge.open(tiny, backend="onnxruntime")
    segmenter.set_queries(queries)
    masks = segmenter.step(PICTURE).masks
    expected = np.where(masks[1], 2, masks[0].astype(np.uint8))
    assert (np.frombuffer(sent.data, np.uint8).reshape(48, 66) == expected).all()

    _, on_queries, _ = node.subscriptions["queries"]
    on_queries(SimpleNamespace(data=" a dog ;; the cat"))
    node.publishers["overlay"].listeners = 1
    on_image(message(PICTURE, "bgr8"))
    (overlay,) = node.publishers["overlay"].sent
    assert (overlay.encoding, overlay.step, len(overlay.data)) == ("bgr8", 3 * 66, 3 * 66 * 48)
    assert node.log[-1] == ("info", "segmenting a dog, the cat")

    on_queries(SimpleNamespace(data=" ; "))
    level, said = node.log[-1]
    assert (level, said.startswith("the old queries stay: there is no query")) == ("error", True)
    on_image(message(PICTURE, "yuv422"))
    assert "'yuv422' cannot be read" in node.log[-1][1]
    on_image(SimpleNamespace(**{**vars(message(PICTURE, "bgr8")), "height": 49}))
    assert "longer than its data" in node.log[-1][1]
    assert len(node.publishers["masks"].sent) == 2
