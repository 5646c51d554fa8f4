/// @file
/// Masks drawn over a frame, with a legend.
#pragma once

#include <opencv2/core.hpp>

#include "rvos_edge/segmenter.hpp"

namespace rvos_edge_examples {

/// Draw the masks, their contours and a legend of queries and scores over a frame, in place.
/// @param frame    8-bit BGR, the frame of `result`.
/// @param opacity  Opacity of the masks, 0 to 1.
void draw_overlay(cv::Mat& frame, const rvos_edge::Result& result, double opacity);

}  // namespace rvos_edge_examples
