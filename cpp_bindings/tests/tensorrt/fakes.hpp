/// @file
/// What tests ask of the fakes, and the fake TensorRT of the fake CUDA.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <string>
#include <vector>

namespace fakes {

/// Everything of CUDA that was not given back: memory, streams, events, graphs.
[[nodiscard]] int held();
/// Names of the calls since the last `forget_calls`, in order: "launch", "capture", "execute <engine>", ...
[[nodiscard]] const std::vector<std::string>& calls();
void forget_calls();
void note(std::string call);
/// Whether capturing fails from now on.
void refuse_capture(bool refuse);
/// How many devices there are.
void set_devices(int devices);

/// Whether a stream's work is being recorded.
[[nodiscard]] bool capturing(cudaStream_t stream);
/// Queue or record work. It runs as late as it may: when somebody waits. False is an error that whoever waits gets.
void enqueue(cudaStream_t stream, std::function<bool()> work);
/// Whether so many bytes of device or pinned memory are there.
[[nodiscard]] bool is_memory(const void* address, std::size_t bytes);

}  // namespace fakes
