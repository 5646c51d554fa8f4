/// @file
/// Engines that `rvos-edge build` wrote into the bundle's folder engines/.
#pragma once

#include <filesystem>
#include <string>

#include "rvos_edge/bundle.hpp"

namespace rvos_edge {

/// Target that an engine must have been built for.
struct EngineAim {
  /// "tensorrt" or "tensorrt-rtx".
  std::string flavour;
  /// TensorRT version, such as "10.3.0".
  std::string version;
  std::string gpu;
  /// Compute capability, such as "87".
  std::string capability;
};

/// Find the undamaged engine of a graph, built on this GPU or elsewhere for its compute capability.
/// @throws UserError  There is none; the message says how the nearest one differs.
[[nodiscard]] std::filesystem::path find_engine(const Bundle& bundle, const std::string& graph, const EngineAim& aim);

}  // namespace rvos_edge
