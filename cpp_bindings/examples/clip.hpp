/// @file
/// Frames of a benchmark, read or drawn before the measurement.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rvos_edge/image.hpp"

namespace rvos_edge_examples {

/// Frames in memory, uint8 [H,W,3] BGR, of one size.
struct Clip {
  /// Name of the source, without folders.
  std::string name;
  rvos_edge::Size size;
  std::vector<std::vector<std::uint8_t>> images;

  /// The frame at `index` of an endless clip that plays forwards and backwards, so that it has no jumps.
  [[nodiscard]] rvos_edge::ImageView at(int index) const;
};

/// Draw shapes that move over a textured ground.
[[nodiscard]] Clip draw_clip(rvos_edge::Size size, int frames);

/// Read the first frames of a video.
/// @throws UserError  It cannot be read, or this program was built without OpenCV.
[[nodiscard]] Clip read_clip(const std::string& source, int frames);

}  // namespace rvos_edge_examples
