/// @file
/// Difference of a frame from the one before: scene cuts and motion.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>

#include "flow_constants.hpp"
#include "resize.hpp"
#include "rvos_edge/image.hpp"

namespace rvos_edge {

/// Difference of a frame from the one before.
struct Change {
  /// Mean absolute difference of the thumbnails, in grey levels.
  double mean = 0;
  /// The difference is unusual for this video, and the frames do not correlate.
  bool cut = false;
};

/// Compares frames by grey thumbnails of 32 x 18 cells, whose means hardly show a camera's noise.
class SceneChange {
 public:
  SceneChange();
  /// Forget the video.
  void reset() noexcept;
  /// Compare the next frame, uint8 [h,w,3] of always the same size; none for the first frame.
  std::optional<Change> look(const std::uint8_t* image, Size size);
  /// Largest change of a cell, in grey levels, from the frame before or from the marked frame, which shows slow motion.
  /// The median change is subtracted first: a change of light is not motion.
  [[nodiscard]] int moved() const;
  /// Mark the last frame, for `moved`.
  void mark() noexcept { marked_ = now_; }

  static constexpr int width = flow_constants::thumbnail_width;
  static constexpr int height = flow_constants::thumbnail_height;
  static constexpr std::size_t cells = std::size_t{width} * height;
  using Thumbnail = std::array<std::uint8_t, cells>;

 private:
  AreaResizer shrink_;
  std::array<std::uint8_t, 3 * cells> colour_ = {};
  Thumbnail now_ = {};
  Thumbnail before_ = {};
  Thumbnail marked_ = {};
  std::deque<double> recent_;
  bool started_ = false;
};

}  // namespace rvos_edge
