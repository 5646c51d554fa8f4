/// @file
/// The backends that are built in, and which of them is tried first.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "rvos_edge/engine.hpp"

namespace rvos_edge {

/// A backend to try, and the reason that is told.
struct Candidate {
  std::string name;
  std::string reason;
};

/// Backends to try for "auto", fastest first; UserError where none can use the device.
[[nodiscard]] std::vector<Candidate> ranked_backends(const Bundle& bundle, const std::string& device);

#ifdef RVOS_EDGE_WITH_OPENVINO
/// @param bfloat16  Compute in bfloat16 in the graphs whose manifest entry allows it.
[[nodiscard]] std::unique_ptr<Backend> make_openvino(const BackendOptions& options, bool bfloat16);
/// Whether this CPU convolves faster in bfloat16 than in float32; takes a sixth of a second to find out.
[[nodiscard]] bool bfloat16_pays();
#endif

#ifdef RVOS_EDGE_WITH_ONNXRUNTIME
[[nodiscard]] std::unique_ptr<Backend> make_onnxruntime(const BackendOptions& options);
#endif

#ifdef RVOS_EDGE_WITH_TENSORRT
/// UserError where there is no driver, no GPU, or no engine of the bundle that fits it.
[[nodiscard]] std::unique_ptr<Backend> make_tensorrt(const Bundle& bundle, const BackendOptions& options);
/// Whether there is a GPU to run on.
[[nodiscard]] bool has_gpu();
#endif

}  // namespace rvos_edge
