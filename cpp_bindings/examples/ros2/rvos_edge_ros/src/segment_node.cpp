// A ROS 2 node: images in, a label image out.
//
//     ros2 run rvos_edge_ros segment_node --ros-args -p bundle:=/opt/my-bundle -p queries:="['the red cup']"
//
// Subscribes to `image` (bgr8 or rgb8) and `query` (std_msgs/String, replaces all queries); publishes `labels` (mono8:
// 0 is background, n the n-th query; where masks overlap the later query wins) under the header of its image.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <rclcpp/rclcpp.hpp>
#include <sensor_msgs/msg/image.hpp>
#include <std_msgs/msg/string.hpp>
#include <string>
#include <utility>
#include <vector>

#include "rvos_edge/segmenter.hpp"

namespace {

using Image = sensor_msgs::msg::Image;
using String = std_msgs::msg::String;

class SegmentNode : public rclcpp::Node {
 public:
  SegmentNode() : Node("rvos_edge") {
    rvos_edge::Options options;
    options.backend = declare_parameter<std::string>("backend", "auto");
    options.device = declare_parameter<std::string>("device", "auto");
    const std::string bundle = declare_parameter<std::string>("bundle", "");
    const auto queries = declare_parameter<std::vector<std::string>>("queries", std::vector<std::string>{});
    segmenter_.emplace(rvos_edge::Bundle::open(bundle), options);
    RCLCPP_INFO(get_logger(), "%s because %s", segmenter_->backend_name().c_str(),
                segmenter_->backend_reason().c_str());
    if (!queries.empty()) {
      segmenter_->set_queries(queries);
      ready_ = true;
    }
    labels_ = create_publisher<Image>("labels", rclcpp::SensorDataQoS());
    // A queue of one, so that only the newest image is processed.
    images_ = create_subscription<Image>("image", rclcpp::SensorDataQoS().keep_last(1),
                                         [this](Image::ConstSharedPtr image) { segment(*image); });
    queries_ = create_subscription<String>("query", 1, [this](String::ConstSharedPtr query) { ask(query->data); });
  }

 private:
  void ask(const std::string& query) {
    try {
      segmenter_->set_queries({query});
      ready_ = true;
    } catch (const rvos_edge::UserError& error) {
      RCLCPP_WARN(get_logger(), "%s", error.what());
    }
  }

  void segment(const Image& image) {
    if (!ready_) {
      return;
    }
    try {
      if (const std::optional<rvos_edge::ImageView> view = look(image)) {
        segmenter_->step(*view, result_);
        publish(image);
      }
    } catch (const rvos_edge::UserError& error) {
      RCLCPP_WARN_THROTTLE(get_logger(), *get_clock(), 5000, "%s", error.what());
    }
  }

  /// An image as BGR; none if it is damaged or of another encoding.
  std::optional<rvos_edge::ImageView> look(const Image& image) {
    const bool rgb = image.encoding == "rgb8";
    const std::size_t row = std::size_t{3} * image.width;
    if ((!rgb && image.encoding != "bgr8") || image.step < row ||
        image.data.size() < std::size_t{image.step} * image.height) {
      RCLCPP_WARN_THROTTLE(get_logger(), *get_clock(), 5000, "an image of encoding '%s' is left out; send bgr8 or rgb8",
                           image.encoding.c_str());
      return std::nullopt;
    }
    const auto height = static_cast<int>(image.height);
    const auto width = static_cast<int>(image.width);
    if (!rgb) {
      return rvos_edge::ImageView{image.data.data(), height, width, 3, static_cast<std::ptrdiff_t>(image.step)};
    }
    turned_.resize(row * image.height);
    for (std::size_t y = 0; y < image.height; ++y) {
      const std::uint8_t* from = image.data.data() + y * image.step;
      std::uint8_t* to = turned_.data() + y * row;
      for (std::size_t x = 0; x < row; x += 3) {
        to[x] = from[x + 2];
        to[x + 1] = from[x + 1];
        to[x + 2] = from[x];
      }
    }
    return rvos_edge::ImageView{turned_.data(), height, width};
  }

  void publish(const Image& image) {
    auto labels = std::make_unique<Image>();
    labels->header = image.header;
    labels->height = image.height;
    labels->width = image.width;
    labels->encoding = "mono8";
    labels->step = image.width;
    const std::size_t pixels = std::size_t{image.height} * image.width;
    labels->data.assign(pixels, 0);
    for (std::size_t query = 0; query < result_.queries.size(); ++query) {
      const std::uint8_t* mask = result_.masks.data() + query * pixels;
      const auto label = static_cast<std::uint8_t>(std::min<std::size_t>(query + 1, 255));
      for (std::size_t i = 0; i < pixels; ++i) {
        labels->data[i] = mask[i] != 0 ? label : labels->data[i];
      }
    }
    labels_->publish(std::move(labels));
  }

  std::optional<rvos_edge::Segmenter> segmenter_;
  rvos_edge::Result result_;
  std::vector<std::uint8_t> turned_;
  bool ready_ = false;
  rclcpp::Publisher<Image>::SharedPtr labels_;
  rclcpp::Subscription<Image>::SharedPtr images_;
  rclcpp::Subscription<String>::SharedPtr queries_;
};

}  // namespace

int main(int argc, char** argv) {
  rclcpp::init(argc, argv);
  int status = 0;
  try {
    rclcpp::spin(std::make_shared<SegmentNode>());
  } catch (const rvos_edge::UserError& error) {
    RCLCPP_FATAL(rclcpp::get_logger("rvos_edge"), "%s", error.what());
    status = 2;
  }
  rclcpp::shutdown();
  return status;
}
