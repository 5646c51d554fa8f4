/// @file
/// Owners of CUDA objects, and errors of CUDA as UserError.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>

namespace rvos_edge {

/// @throws UserError  `code` is an error, of this call or of earlier work on a stream.
void check_cuda(cudaError_t code, const char* function);

/// Name and compute capability, such as "Orin" and "87".
struct Gpu {
  std::string name;
  std::string capability;
};

/// Describe a GPU, by its index.
/// @throws UserError  There is no driver or no such device.
[[nodiscard]] Gpu find_gpu(int index);

/// Makes a device current in this thread, and at its end the one that was.
class CurrentDevice {
 public:
  explicit CurrentDevice(int index);
  ~CurrentDevice();
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
  int index_;
};

struct FreeDevice {
  void operator()(void* memory) const noexcept { cudaFree(memory); }
};
struct FreePinned {
  void operator()(void* memory) const noexcept { cudaFreeHost(memory); }
};
struct DestroyStream {
  void operator()(cudaStream_t stream) const noexcept { cudaStreamDestroy(stream); }
};
struct DestroyEvent {
  void operator()(cudaEvent_t event) const noexcept { cudaEventDestroy(event); }
};
struct DestroyGraph {
  void operator()(cudaGraph_t graph) const noexcept { cudaGraphDestroy(graph); }
};
struct DestroyExecutable {
  void operator()(cudaGraphExec_t executable) const noexcept { cudaGraphExecDestroy(executable); }
};

using DeviceMemory = std::unique_ptr<void, FreeDevice>;
using PinnedMemory = std::unique_ptr<void, FreePinned>;
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, DestroyStream>;
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, DestroyEvent>;
using CudaGraph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;
using Executable = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, DestroyExecutable>;

/// Device memory, aligned to 256 bytes.
[[nodiscard]] DeviceMemory allocate_device(std::size_t bytes);
/// Pinned host memory, which copies need to overlap with other work.
[[nodiscard]] PinnedMemory allocate_pinned(std::size_t bytes);
/// A stream that does not wait for the default stream.
[[nodiscard]] Stream make_stream();
/// An event that streams can record and wait for.
[[nodiscard]] Event make_event(bool timed);

}  // namespace rvos_edge
