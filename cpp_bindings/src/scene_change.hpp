/// @file
/// How a frame differs from the one before: whether the scene was cut, and whether anything moved.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>

#include "resize.hpp"
#include "rvos_edge/image.hpp"

namespace rvos_edge {

/// A frame against the one before.
struct Change {
  /// Mean absolute difference of the thumbnails, in grey levels.
  double mean = 0;
  /// Whether that much is out of the ordinary in this video, and the picture another one.
  bool cut = false;
};

/// Compares frames by thumbnails of 32 x 18 cells: in their means the noise of a camera is nearly gone.
class SceneChange {
 public:
  SceneChange();
  /// Forget the video.
  void reset() noexcept;
  /// Compare the next frame, uint8 [h,w,3] of always the same size; none for the first one.
  std::optional<Change> look(const std::uint8_t* image, Size size);
  /// Grey levels by which the most changed cell differs from the frame before or from the marked one. The latter finds
  /// what creeps. A change of the light as a whole is no motion.
  [[nodiscard]] int moved() const;
  /// Remember the frame that was looked at last, for `moved`.
  void mark() noexcept { marked_ = now_; }

  static constexpr int width = 32;
  static constexpr int height = 18;
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
