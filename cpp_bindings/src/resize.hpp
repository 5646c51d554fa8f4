/// @file
/// Bilinear and area resizing of uint8 images, bit for bit as OpenCV's.
#pragma once

#include <cstdint>
#include <vector>

#include "rvos_edge/image.hpp"

namespace rvos_edge {

/// Source neighbours `at` and `at + 1` of each output pixel of a bilinear resize, and their weights.
struct Taps {
  std::vector<int> at;
  /// Weight of the second neighbour.
  std::vector<float> weight;
};

/// Taps along an axis, as OpenCV computes them (half-pixel centres, no antialiasing).
/// @param clamp  Keep both neighbours inside the source (columns); for rows the caller clamps.
[[nodiscard]] Taps linear_taps(int source, int target, bool clamp);

/// Resizes frames to the network's input: bilinear, without antialiasing, not keeping the aspect ratio. Equal to
/// `cv2.resize(..., INTER_LINEAR)` on uint8, which uses weights of 11 bits and rounds between columns and rows.
class Resizer {
 public:
  explicit Resizer(Size target) : target_(target) {}

  /// Resize a frame of three channels into `target`, uint8 [h,w,3].
  /// @param pitch  Bytes from one row of the target to the next; 0 for rows without gaps.
  void operator()(ImageView frame, std::uint8_t* target, std::size_t pitch = 0);
  [[nodiscard]] Size target() const noexcept { return target_; }

 private:
  void prepare(Size source);
  void fill_row(const ImageView& frame, int row, std::int16_t* filled) const;

  Size target_;
  Size source_;
  std::vector<int> left_;
  std::vector<std::int32_t> left_weight_;
  std::vector<std::int32_t> right_weight_;
  Taps rows_;
  std::vector<std::int16_t> first_;
  std::vector<std::int16_t> second_;
};

/// Shrinks images of three channels by averaging: `cv2.resize(..., INTER_AREA)` on uint8.
class AreaResizer {
 public:
  explicit AreaResizer(Size target) : target_(target) {}

  /// Resize uint8 [h,w,3] without gaps into `target`, of the target's size.
  void operator()(const std::uint8_t* image, Size size, std::uint8_t* target);

 private:
  /// Weight of a source pixel in a target pixel.
  struct Share {
    int source;
    int target;
    float weight;
  };
  [[nodiscard]] static std::vector<Share> shares(int source, int target);
  void whole(const std::uint8_t* image, Size size, std::uint8_t* target);
  void general(const std::uint8_t* image, Size size, std::uint8_t* target);

  Size target_;
  Size source_;
  std::vector<Share> columns_;
  std::vector<Share> rows_;
  std::vector<std::int32_t> sums_;
  std::vector<float> row_;
  std::vector<float> total_;
};

}  // namespace rvos_edge
