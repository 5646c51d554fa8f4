#include "placement.hpp"

#include <algorithm>
#include <cmath>

namespace rvos_edge {
namespace {

constexpr double most_stretch = 4.0 / 3.0;
constexpr int step = 8;
/// ImageNet's mean, BGR.
constexpr std::uint8_t bars[3] = {104, 116, 124};

int whole(double extent, int most) {
  return std::min(most, std::max(step, static_cast<int>(std::nearbyint(extent / step)) * step));
}

}  // namespace

Region place(Size frame, Size size) {
  const double wider =
      (static_cast<double>(frame.width) / frame.height) / (static_cast<double>(size.width) / size.height);
  Region region{0, 0, size.height, size.width};
  if (wider < 1 / most_stretch) {
    region.width = whole(size.width * wider * most_stretch, size.width);
  } else if (wider > most_stretch) {
    region.height = whole(size.height * most_stretch / wider, size.height);
  }
  region.top = (size.height - region.height) / (2 * step) * step;
  region.left = (size.width - region.width) / (2 * step) * step;
  return region;
}

Region scale_region(const Region& region, Size size, Size grid) {
  const auto rows = [&](int at) { return static_cast<int>(std::int64_t{at} * grid.height / size.height); };
  const auto columns = [&](int at) { return static_cast<int>(std::int64_t{at} * grid.width / size.width); };
  Region scaled{rows(region.top), columns(region.left), 0, 0};
  scaled.height = rows(region.top + region.height) - scaled.top;
  scaled.width = columns(region.left + region.width) - scaled.left;
  return scaled;
}

void fill_bars(std::uint8_t* image, Size size) {
  const std::size_t pixels = count({size.height, size.width});
  for (std::size_t i = 0; i < pixels; ++i) {
    std::copy_n(bars, 3, image + 3 * i);
  }
}

void fill_padding(std::vector<float>& flow, Size grid, const Region& region) {
  const std::size_t plane = count({grid.height, grid.width});
  const auto inside = [&](auto visit) {
    for (int y = region.top; y < region.top + region.height; ++y) {
      for (int x = region.left; x < region.left + region.width; ++x) {
        visit(static_cast<std::size_t>(y) * static_cast<std::size_t>(grid.width) + static_cast<std::size_t>(x));
      }
    }
  };
  const auto pixels = static_cast<double>(count({region.height, region.width}));
  double sum[2] = {};
  inside([&](std::size_t i) {
    sum[0] += flow[i];
    sum[1] += flow[plane + i];
  });
  const double mean[2] = {sum[0] / pixels, sum[1] / pixels};
  double deviation = 0;
  inside([&](std::size_t i) { deviation += std::hypot(flow[i] - mean[0], flow[plane + i] - mean[1]); });
  const double spread = deviation / pixels;
  for (int y = 0; y < grid.height; ++y) {
    const bool row_inside = y >= region.top && y < region.top + region.height;
    for (int x = 0; x < grid.width; ++x) {
      if (!row_inside || x < region.left || x >= region.left + region.width) {
        const std::size_t i =
            static_cast<std::size_t>(y) * static_cast<std::size_t>(grid.width) + static_cast<std::size_t>(x);
        flow[i] = static_cast<float>(mean[0] + (x % 2 == 0 ? spread : -spread));
        flow[plane + i] = static_cast<float>(mean[1]);
      }
    }
  }
}

}  // namespace rvos_edge
