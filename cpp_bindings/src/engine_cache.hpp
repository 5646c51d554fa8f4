/// @file
/// Engines that `rvos-edge build` made from a bundle's graphs, kept beside them in engines/.
#pragma once

#include <filesystem>
#include <string>

#include "rvos_edge/bundle.hpp"

namespace rvos_edge {

/// What an engine must have been made for.
struct EngineAim {
  /// "tensorrt" or "tensorrt-rtx".
  std::string flavour;
  /// Such as "10.3.0".
  std::string version;
  std::string gpu;
  /// Such as "87".
  std::string capability;
};

/// The engine of a graph, whole and unchanged: built on this GPU, or aimed at its compute capability elsewhere.
/// @throws UserError  There is none; the sentence says how the nearest one differs.
[[nodiscard]] std::filesystem::path find_engine(const Bundle& bundle, const std::string& graph, const EngineAim& aim);

}  // namespace rvos_edge
