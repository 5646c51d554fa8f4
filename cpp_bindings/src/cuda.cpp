#include "cuda.hpp"

#include "rvos_edge/error.hpp"

namespace rvos_edge {
namespace {

const char* remedy_for(cudaError_t code) {
  switch (code) {
  case cudaErrorMemoryAllocation:
    return "close other programs, or use a smaller size or fewer queries";
  case cudaErrorInsufficientDriver:
    return "install the NVIDIA driver, or a newer one, or use device 'cpu'";
  case cudaErrorNoDevice:
    return "use a machine with an NVIDIA GPU and its driver, or device 'cpu'";
  default:
    return "start again, or use device 'cpu'";
  }
}

}  // namespace

void check_cuda(cudaError_t code, const char* function) {
  if (code != cudaSuccess) {
    throw UserError(ErrorCode::engine, "CUDA: " + std::string(function) + " failed with " + cudaGetErrorName(code) +
                                           " (" + cudaGetErrorString(code) + "); " + remedy_for(code) + ".");
  }
}

CurrentDevice::CurrentDevice(int index) : index_(index) {
  check_cuda(cudaGetDevice(&before_), "cudaGetDevice");
  if (before_ != index_) {
    check_cuda(cudaSetDevice(index_), "cudaSetDevice");
  }
}

CurrentDevice::~CurrentDevice() {
  if (before_ != index_) {
    cudaSetDevice(before_);
  }
}

Gpu find_gpu(int index) {
  int devices = 0;
  check_cuda(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  if (devices == 0) {
    throw UserError(ErrorCode::unsupported_backend,
                    std::string("CUDA finds no device; ") + remedy_for(cudaErrorNoDevice) + ".");
  }
  if (index >= devices) {
    throw UserError(ErrorCode::unsupported_backend, "device 'cuda:" + std::to_string(index) +
                                                        "' is not here; use one below " + std::to_string(devices) +
                                                        ".");
  }
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  return {properties.name, std::to_string(properties.major) + std::to_string(properties.minor)};
}

DeviceMemory allocate_device(std::size_t bytes) {
  void* memory = nullptr;
  check_cuda(cudaMalloc(&memory, bytes), "cudaMalloc");
  return DeviceMemory(memory);
}

PinnedMemory allocate_pinned(std::size_t bytes) {
  void* memory = nullptr;
  check_cuda(cudaMallocHost(&memory, bytes), "cudaMallocHost");
  return PinnedMemory(memory);
}

Stream make_stream() {
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return Stream(stream);
}

Event make_event(bool timed) {
  cudaEvent_t event = nullptr;
  const unsigned flags = timed ? cudaEventDefault : cudaEventDisableTiming;
  check_cuda(cudaEventCreateWithFlags(&event, flags), "cudaEventCreateWithFlags");
  return Event(event);
}

}  // namespace rvos_edge
