#include "scene_change.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <vector>

namespace rvos_edge {
namespace {

namespace constants = flow_constants;
using Thumbnail = SceneChange::Thumbnail;

double median(const std::deque<double>& values) {
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const std::size_t half = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/// Correlation coefficient, -1 to 1; 0 if a thumbnail is of one grey level.
double correlation(const Thumbnail& a, const Thumbnail& b) {
  const double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / static_cast<double>(a.size());
  const double mean_b = std::accumulate(b.begin(), b.end(), 0.0) / static_cast<double>(b.size());
  double aa = 0;
  double bb = 0;
  double ab = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double left = a[i] - mean_a;
    const double right = b[i] - mean_b;
    aa += left * left;
    bb += right * right;
    ab += left * right;
  }
  const double norm = std::sqrt(aa) * std::sqrt(bb);
  return norm > 0 ? ab / norm : 0.0;
}

int largest(const Thumbnail& a, const Thumbnail& b) {
  std::array<int, SceneChange::cells> differences = {};
  std::transform(a.begin(), a.end(), b.begin(), differences.begin(), [](int x, int y) { return x - y; });
  auto* const middle = differences.data() + SceneChange::cells / 2;
  std::nth_element(differences.data(), middle, differences.data() + differences.size());
  const auto [low, high] = std::minmax_element(differences.begin(), differences.end());
  return std::max(*high - *middle, *middle - *low);
}

}  // namespace

SceneChange::SceneChange() : shrink_({height, width}) {}

void SceneChange::reset() noexcept {
  started_ = false;
  recent_.clear();
}

std::optional<Change> SceneChange::look(const std::uint8_t* image, Size size) {
  std::swap(now_, before_);
  shrink_(image, size, colour_.data());
  for (std::size_t i = 0; i < cells; ++i) {
    const std::uint8_t* bgr = colour_.data() + 3 * i;
    // OpenCV's grey, in 15 bits.
    now_[i] = static_cast<std::uint8_t>((bgr[0] * 3735 + bgr[1] * 19235 + bgr[2] * 9798 + (1 << 14)) >> 15);
  }
  if (!started_) {
    started_ = true;
    before_ = now_;
    mark();
    return std::nullopt;
  }
  int sum = 0;
  for (std::size_t i = 0; i < cells; ++i) {
    sum += std::abs(now_[i] - before_[i]);
  }
  const double mean = static_cast<double>(sum) / static_cast<double>(cells);
  const bool unusual = !recent_.empty() && mean > constants::unusual * median(recent_);
  recent_.push_back(mean);
  if (recent_.size() > constants::recent_frames) {
    recent_.pop_front();
  }
  return Change{mean, unusual && correlation(now_, before_) < constants::similar};
}

int SceneChange::moved() const {
  return std::max(largest(now_, before_), largest(now_, marked_));
}

}  // namespace rvos_edge
