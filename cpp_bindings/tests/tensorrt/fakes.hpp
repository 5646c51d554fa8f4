/// @file
/// Functions of the fakes for the tests, and of the fake CUDA for the fake TensorRT.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <string>
#include <vector>

namespace fakes {

/// Number of CUDA objects that were not released: memory, streams, events, graphs.
[[nodiscard]] int held();
/// Names of the calls since the last `forget_calls`, in order: "launch", "capture", "execute <engine>", ...
[[nodiscard]] const std::vector<std::string>& calls();
void forget_calls();
void note(std::string call);
/// Make captures fail from now on.
void refuse_capture(bool refuse);
/// Make updateDeviceMemorySizeForShapes fail from now on, as it does for incomplete shapes.
void refuse_memory_size(bool refuse);
[[nodiscard]] bool memory_size_refused();
/// Set the number of devices.
void set_devices(int devices);

/// Current device of this thread. As in CUDA, memory, streams and events are made on it, and only copies and waits
/// may name a stream of another.
[[nodiscard]] int current_device();
/// True if a stream is of the current device.
[[nodiscard]] bool is_current(cudaStream_t stream);

/// True if a stream's work is being recorded.
[[nodiscard]] bool capturing(cudaStream_t stream);
/// Queue or record work. It runs as late as possible: when a caller waits, which gets an error if it returns false.
void enqueue(cudaStream_t stream, std::function<bool()> work);
/// True if an address is that of at least so many bytes of device or pinned memory.
[[nodiscard]] bool is_memory(const void* address, std::size_t bytes);

}  // namespace fakes
