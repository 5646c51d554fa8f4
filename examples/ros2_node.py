"""A ROS 2 node: images in, masks out, the queries on a topic.

    source /opt/ros/humble/setup.bash
    python3 examples/ros2_node.py --ros-args -r image:=/camera/image_raw -p queries:="['a person', 'a red ball']"
    ros2 topic pub --once /queries std_msgs/msg/String "data: 'the dog on the left; a red ball'"

Topics:
    image    in   sensor_msgs/Image: bgr8, rgb8, bgra8, rgba8 or mono8
    queries  in   std_msgs/String: what to segment from the next image on, several separated by semicolons
    masks    out  sensor_msgs/Image, mono8, of the image's size: 0 is background, i+1 query i, a later query wins
    overlay  out  sensor_msgs/Image, bgr8; drawn only while somebody listens

Headers are the image's own. While an image is segmented only the newest of those that arrive is kept. Parameters:
queries (list of strings), bundle (directory; empty for the one that comes with the package), device, backend.

Needs ROS 2 with rclpy, sensor_msgs and std_msgs; cv_bridge is not needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import String

import rvos_edge
from rvos_edge.streaming.overlay import draw_overlay
from rvos_edge.streaming.sinks import label_image

# Cameras publish as best effort; a depth of one leaves no queue of images that are too old.
_NEWEST = QoSProfile(depth=1, history=QoSHistoryPolicy.KEEP_LAST, reliability=QoSReliabilityPolicy.BEST_EFFORT)
_CHANNELS: dict[str, tuple[int, ...]] = {
    "bgr8": (0, 1, 2),
    "rgb8": (2, 1, 0),
    "bgra8": (0, 1, 2),
    "rgba8": (2, 1, 0),
    "mono8": (0, 0, 0),
}
"""Channels of an encoding that are blue, green and red."""
_DEPTHS = {"bgr8": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4, "mono8": 1}


class SegmentNode(Node):
    """Segments what the queries name in every image that it is given time for."""

    def __init__(self) -> None:
        super().__init__("rvos_edge")
        get = self.declare_parameter
        queries = list(get("queries", ["a person"]).value)
        bundle, device, backend = (get("bundle", "").value, get("device", "auto").value, get("backend", "auto").value)
        self._segmenter = rvos_edge.open(bundle or None, device=device, backend=backend)
        self._segmenter.set_queries(queries)
        self._masks = self.create_publisher(Image, "masks", 1)
        self._overlay = self.create_publisher(Image, "overlay", 1)
        self.create_subscription(Image, "image", self._on_image, _NEWEST)
        self.create_subscription(String, "queries", self._on_queries, 10)
        name, reason = self._segmenter.backend_name, self._segmenter.backend_reason
        self.get_logger().info(f"segmenting {', '.join(self._segmenter.queries)} on {name} because {reason}")

    def _on_queries(self, message: Any) -> None:
        try:
            self._segmenter.set_queries([part.strip() for part in message.data.split(";") if part.strip()])
        except rvos_edge.UserError as error:
            self.get_logger().error(f"the old queries stay: {error}")
        else:
            self.get_logger().info(f"segmenting {', '.join(self._segmenter.queries)}")

    def _on_image(self, message: Any) -> None:
        try:
            image = to_bgr(message)
        except ValueError as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        result = self._segmenter.step(image)
        self._masks.publish(to_message(label_image(result.masks), "mono8", message.header))
        if self._overlay.get_subscription_count():
            self._overlay.publish(to_message(draw_overlay(image, result), "bgr8", message.header))


def to_bgr(message: Any) -> NDArray[np.uint8]:
    """An image message as uint8 [H,W,3] BGR.

    Raises:
        ValueError: The encoding is another, or the data is too short.
    """
    channels = _CHANNELS.get(message.encoding)
    if channels is None:
        raise ValueError(f"images of encoding '{message.encoding}' cannot be read; send one of {', '.join(_CHANNELS)}")
    depth = _DEPTHS[message.encoding]
    data = np.frombuffer(message.data, np.uint8)
    if message.step < message.width * depth or data.size < message.height * message.step:
        raise ValueError(f"an image of {message.width}x{message.height} {message.encoding} is longer than its data")
    # Rows may be padded.
    rows = data[: message.height * message.step].reshape(message.height, message.step)[:, : message.width * depth]
    pixels = rows.reshape(message.height, message.width, depth)
    return np.ascontiguousarray(pixels[..., list(channels)])


def to_message(image: NDArray[np.uint8], encoding: str, header: Any) -> Any:
    """An image message of uint8 [H,W] or [H,W,3], with another message's header."""
    message = Image()
    message.header = header
    message.height, message.width = image.shape[:2]
    message.encoding = encoding
    message.is_bigendian = 0
    message.step = image.strides[0]
    message.data = image.tobytes()
    return message


def main() -> None:
    """Run the node until Ctrl-C or a shutdown of ROS."""
    rclpy.init()
    try:
        node = SegmentNode()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
