/// @file
/// Place of a frame in the network's input: stretched a little, else between bars. rvos_edge/preprocess.py does the
/// same.
#pragma once

#include <cstdint>
#include <vector>

#include "rvos_edge/image.hpp"

namespace rvos_edge {

/// Part of a map that shows the frame; the rest is padding.
struct Region {
  int top = 0;
  int left = 0;
  int height = 0;
  int width = 0;
};

/// Place a frame in the network's input. A frame is stretched to the input's aspect ratio, but by no more than 4/3;
/// beyond that it is centred between bars, whose extents are multiples of 8 pixels.
/// @param frame  Height and width of the frame.
/// @param size   Height and width of the input, multiples of 8.
[[nodiscard]] Region place(Size frame, Size size);

/// The region on a map of the input at any stride up to 8.
[[nodiscard]] Region scale_region(const Region& region, Size size, Size grid);

/// Fill an image with the colour of the bars.
/// @param image  uint8 [h,w,3] BGR of `size`.
void fill_bars(std::uint8_t* image, Size size);

/// Fill the padding of a flow field so that the mean flow and the mean deviation from it are those of the frame, which
/// are what `gating` normalises by.
/// @param flow  float32 [2,h,w] of `grid`.
void fill_padding(std::vector<float>& flow, Size grid, const Region& region);

}  // namespace rvos_edge
