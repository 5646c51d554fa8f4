/// @file
/// The backends that are built in, and their ranking.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rvos_edge/engine.hpp"

namespace rvos_edge {

/// A backend to try, and the reason for it.
struct Candidate {
  std::string name;
  std::string reason;
};

/// Index of the GPU that a device names: 1 for "cuda:1"; 0 for "auto", "cpu" and "cuda".
[[nodiscard]] int gpu_index(const std::string& device);

/// Declare a graph's tensors on the board; their slots, those of the inputs first.
[[nodiscard]] std::vector<const Board::Slot*> declare_slots(Board& board, const GraphSpec& spec);

/// True if a shape is that of the manifest, in which a symbolic extent stands for `symbolic`, or for any if that is
/// none; a negative extent fits any.
[[nodiscard]] bool fits_shape(const Shape& shape, const TensorSpec& spec, std::optional<std::int64_t> symbolic = {});

/// An output for one query, copied.
/// @throws UserError  It is of another shape than the manifest says; `path` is the graph's file.
[[nodiscard]] HostTensor copy_output(const TensorSpec& spec, Shape shape, const void* data, const std::string& path);

/// Backends to try for "auto", fastest first.
/// @throws UserError  None can use the device.
[[nodiscard]] std::vector<Candidate> ranked_backends(const Bundle& bundle, const std::string& device);

#ifdef RVOS_EDGE_WITH_OPENVINO
/// @param bfloat16  Compute in bfloat16 in the graphs whose manifest entry allows it.
[[nodiscard]] std::unique_ptr<Backend> make_openvino(const BackendOptions& options, bool bfloat16);
/// True if this CPU convolves faster in bfloat16 than in float32, measured in a sixth of a second.
[[nodiscard]] bool bfloat16_pays();
#endif

#ifdef RVOS_EDGE_WITH_ONNXRUNTIME
[[nodiscard]] std::unique_ptr<Backend> make_onnxruntime(const BackendOptions& options);
#endif

#ifdef RVOS_EDGE_WITH_TENSORRT
/// @throws UserError  There is no driver, no GPU, or no engine of the bundle that fits it.
[[nodiscard]] std::unique_ptr<Backend> make_tensorrt(const Bundle& bundle, const BackendOptions& options);
/// True if there is a GPU of this index.
[[nodiscard]] bool has_gpu(int index);
#endif

}  // namespace rvos_edge
