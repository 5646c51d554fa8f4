/// @file
/// Pieces of messages about tensors and engines.
#pragma once

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "rvos_edge/bundle.hpp"

namespace rvos_edge {

/// An engine's message on one line, cut to `most` characters.
[[nodiscard]] inline std::string one_line(const std::string& text, std::size_t most) {
  std::istringstream words(text);
  std::string line;
  for (std::string word; words >> word;) {
    line += (line.empty() ? "" : " ") + word;
  }
  return line.substr(0, most);
}

[[nodiscard]] inline std::vector<std::string> sorted(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  return names;
}

/// ['a', 'b']
[[nodiscard]] inline std::string list_text(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text += (text.empty() ? "'" : ", '") + name + "'";
  }
  return "[" + text + "]";
}

/// [1, 288, 512]
[[nodiscard]] inline std::string shape_text(const Shape& shape) {
  std::string text;
  for (const std::int64_t extent : shape) {
    text += (text.empty() ? "" : ", ") + std::to_string(extent);
  }
  return "[" + text + "]";
}

/// ['Q', 48]
[[nodiscard]] inline std::string shape_text(const std::vector<Dim>& shape) {
  std::string text;
  for (const Dim& dim : shape) {
    text += (text.empty() ? "" : ", ") + (dim.symbol.empty() ? std::to_string(dim.extent) : "'" + dim.symbol + "'");
  }
  return "[" + text + "]";
}

}  // namespace rvos_edge
