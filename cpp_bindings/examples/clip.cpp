#include "clip.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "arguments.hpp"

#ifdef RVOS_EDGE_WITH_OPENCV
#include <opencv2/videoio.hpp>
#endif

namespace rvos_edge_examples {
namespace {

constexpr std::size_t most_bytes = std::size_t{512} << 20;

struct Disc {
  double x, y, radius;
  std::uint8_t colour[3];
};

/// Draw a textured background that moves with the camera, one pixel per frame.
std::uint8_t ground(int x, int y, int channel) {
  const double wave = std::sin(0.11 * x) + std::sin(0.07 * y) + std::sin(0.05 * (x + y + 40 * channel));
  return static_cast<std::uint8_t>(std::lround(120 + 25 * wave));
}

}  // namespace

rvos_edge::ImageView Clip::at(int index) const {
  const int last = static_cast<int>(images.size()) - 1;
  const int place = last == 0 ? 0 : last - std::abs(last - index % (2 * last));
  return {images[static_cast<std::size_t>(place)].data(), size.height, size.width};
}

Clip draw_clip(rvos_edge::Size size, int frames) {
  Clip clip{"shapes", size, {}};
  const std::size_t bytes = static_cast<std::size_t>(size.height) * static_cast<std::size_t>(size.width) * 3;
  frames = static_cast<int>(
      std::min<std::size_t>(static_cast<std::size_t>(frames), std::max<std::size_t>(most_bytes / bytes, 1)));
  for (int t = 0; t < frames; ++t) {
    const double unit = size.height / 10.0;
    const Disc discs[] = {{size.width * 0.3 + 2.0 * t, size.height * 0.5, 2 * unit, {40, 40, 210}},
                          {size.width * 0.7 - 1.5 * t, size.height * 0.4 + t * 0.5, 1.5 * unit, {200, 90, 30}}};
    std::vector<std::uint8_t> image(bytes);
    std::size_t at = 0;
    for (int y = 0; y < size.height; ++y) {
      for (int x = 0; x < size.width; ++x) {
        const Disc* inside = nullptr;
        for (const Disc& disc : discs) {
          // Shapes that leave on one side return on the other.
          const double away = std::remainder(x - disc.x, size.width);
          inside = std::hypot(away, y - disc.y) < disc.radius ? &disc : inside;
        }
        for (int channel = 0; channel < 3; ++channel) {
          image[at++] = inside != nullptr ? inside->colour[channel] : ground(x + t, y, channel);
        }
      }
    }
    clip.images.push_back(std::move(image));
  }
  return clip;
}

Clip read_clip(const std::string& source, int frames) {
#ifdef RVOS_EDGE_WITH_OPENCV
  cv::VideoCapture capture(source);
  Clip clip{std::filesystem::path(source).filename().string(), {}, {}};
  cv::Mat frame;
  std::size_t bytes = 0;
  while (static_cast<int>(clip.images.size()) < frames && bytes < most_bytes && capture.read(frame)) {
    const rvos_edge::Size size{frame.rows, frame.cols};
    if (!clip.images.empty() && size != clip.size) {
      throw bad_option(source + ": its frames differ in size; benchmark frames of one size.");
    }
    clip.size = size;
    clip.images.emplace_back(frame.datastart, frame.dataend);
    bytes += clip.images.back().size();
  }
  if (clip.images.empty()) {
    throw bad_option(source + " gives no frames; choose another --source.");
  }
  return clip;
#else
  static_cast<void>(frames);
  throw bad_option("--source " + source + " needs OpenCV, which this program was built without; leave it out.");
#endif
}

}  // namespace rvos_edge_examples
