/// @file
/// NumPy arrays in and out without copies.
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <vector>

#include "rvos_edge/image.hpp"

namespace rvos_edge_python {

namespace nb = nanobind;

/// A frame as the library sees it, and what keeps its memory alive.
struct Frame {
  nb::object owner;
  rvos_edge::ImageView view;
};

/// Look at a NumPy array uint8 [H,W,3]; one whose pixels or rows are not in order is copied.
/// @throws UserError  It is something else; the sentence gives its dtype and shape.
Frame view_frame(nb::handle frame);

/// UTF-8 of the queries; a lone surrogate stays one, for the library to refuse.
/// @throws UserError  It is not a list of strings, or is empty.
std::vector<std::string> to_queries(nb::handle queries);

/// Hand the memory of an array over to NumPy.
nb::object to_bool(rvos_edge::Array<std::uint8_t>& array);
nb::object to_float(rvos_edge::Array<float>& array);

}  // namespace rvos_edge_python
