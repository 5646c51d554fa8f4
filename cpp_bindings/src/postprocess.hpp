/// @file
/// Margins to masks of the frame's size.
#pragma once

#include <cstdint>
#include <vector>

#include "resize.hpp"
#include "rvos_edge/image.hpp"

namespace rvos_edge {

/// Check that a frame is uint8 [H,W,3] with H, W >= 1.
/// @throws UserError  It is not; the message gives the shape.
void check_frame(const ImageView& frame);

/// Check a threshold.
/// @throws UserError  It is not finite.
void check_threshold(float threshold);

/// Upsamples margins to the frame's size and thresholds them; bilinear, as PyTorch's
/// `interpolate(align_corners=False)`.
class Postprocessor {
 public:
  /// @param threshold  Logit above which a pixel belongs to the object; 0 is a probability of one half.
  explicit Postprocessor(float threshold) noexcept : threshold_(threshold) {}

  [[nodiscard]] float threshold() const noexcept { return threshold_; }
  void set_threshold(float threshold) noexcept { threshold_ = threshold; }

  /// @param margins  float32 [Q,h,w], object minus background logit.
  /// @param masks    Becomes uint8 [Q,H,W] of 0 and 1.
  void masks(const Array<float>& margins, Size size, Array<std::uint8_t>& masks);
  /// @param scores   Becomes float32 [Q]: mean object probability over each mask, 0 for an empty one.
  void scores(const Array<float>& margins, Array<float>& scores) const;

 private:
  void prepare(Size source, Size target);
  void mask(const float* margin, std::uint8_t* mask);

  float threshold_;
  Size source_;
  Size target_;
  Taps columns_;
  Taps rows_;
  std::vector<float> first_;
  std::vector<float> second_;
};

}  // namespace rvos_edge
