/// @file
/// Conversion of NumPy arrays without copies.
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <vector>

#include "rvos_edge/image.hpp"

namespace rvos_edge_python {

namespace nb = nanobind;

/// A view of a frame, and the object that keeps its memory alive.
struct Frame {
  nb::object owner;
  rvos_edge::ImageView view;
};

/// View a NumPy array uint8 [H,W,3]; it is copied if its pixels or rows are not contiguous.
/// @throws UserError  It is something else; the message gives its dtype and shape.
Frame view_frame(nb::handle frame);

/// UTF-8 of the queries; a lone surrogate becomes invalid UTF-8, which the library refuses.
/// @throws UserError  It is not a list of strings, or is empty.
std::vector<std::string> to_queries(nb::handle queries);

/// Move the memory of an array to NumPy.
nb::object to_bool(rvos_edge::Array<std::uint8_t>& array);
nb::object to_float(rvos_edge::Array<float>& array);

}  // namespace rvos_edge_python
