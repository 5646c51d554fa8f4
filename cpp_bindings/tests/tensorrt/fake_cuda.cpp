// A CUDA device without a GPU: memory is the host's, streams are queues that run only when a caller waits, and
// forbidden calls end a capture. It guarantees no more than CUDA does.
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>

#include "fakes.hpp"

namespace {

using Work = std::function<bool()>;

struct World {
  std::recursive_mutex mutex;
  std::map<const void*, std::size_t> memory;
  int objects = 0;
  int devices = 1;
  bool refuse_capture = false;
  bool refuse_memory_size = false;
  cudaStream_t captured = nullptr;
  std::vector<std::string> calls;
  float time = 0;
};

World& world() {
  static World instance;
  return instance;
}

thread_local int current = 0;

}  // namespace

struct CUstream_st {
  int device = current;
  std::deque<Work> queue;
  std::vector<Work> recorded;
  bool broken = false;
  cudaError_t error = cudaSuccess;
};
struct CUevent_st {
  int device = current;
  cudaStream_t stream = nullptr;
  bool passed = true;
  float time = 0;
};
struct CUgraph_st {
  std::vector<Work> work;
};
struct CUgraphExec_st {
  std::vector<Work> work;
};

namespace {

/// Calls that wait or allocate are refused during a capture, and invalidate it.
bool spoils_capture() {
  if (world().captured != nullptr) {
    world().captured->broken = true;
    return true;
  }
  return false;
}

cudaError_t drain(cudaStream_t stream) {
  while (!stream->queue.empty()) {
    const Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    world().time += 1;
    if (!work()) {
      stream->error = cudaErrorIllegalAddress;
    }
  }
  return stream->error;
}

template <class T>
cudaError_t make(T** object) {
  *object = new T;
  ++world().objects;
  return cudaSuccess;
}

template <class T>
cudaError_t destroy(T* object) {
  delete object;
  --world().objects;
  return cudaSuccess;
}

cudaError_t allocate(void** memory, std::size_t bytes) {
  const std::lock_guard<std::recursive_mutex> lock(world().mutex);
  if (spoils_capture()) {
    return cudaErrorStreamCaptureUnsupported;
  }
  *memory = std::malloc(bytes);
  // The contents of new memory are undefined.
  std::memset(*memory, 0xCD, bytes);
  world().memory[*memory] = bytes;
  return cudaSuccess;
}

cudaError_t release(void* memory) {
  const std::lock_guard<std::recursive_mutex> lock(world().mutex);
  if (spoils_capture()) {
    return cudaErrorStreamCaptureUnsupported;
  }
  if (world().memory.erase(memory) == 0) {
    return cudaErrorInvalidValue;
  }
  std::free(memory);
  return cudaSuccess;
}

}  // namespace

namespace fakes {

int held() {
  return world().objects + static_cast<int>(world().memory.size());
}
const std::vector<std::string>& calls() {
  return world().calls;
}
void forget_calls() {
  world().calls.clear();
}
void note(std::string call) {
  world().calls.push_back(std::move(call));
}
void refuse_capture(bool refuse) {
  world().refuse_capture = refuse;
}
void refuse_memory_size(bool refuse) {
  world().refuse_memory_size = refuse;
}
bool memory_size_refused() {
  return world().refuse_memory_size;
}
void set_devices(int devices) {
  world().devices = devices;
}
int current_device() {
  return current;
}
bool is_current(cudaStream_t stream) {
  return stream->device == current;
}
bool capturing(cudaStream_t stream) {
  return world().captured == stream;
}

void enqueue(cudaStream_t stream, std::function<bool()> work) {
  if (capturing(stream)) {
    stream->recorded.push_back(std::move(work));
  } else {
    stream->queue.push_back(std::move(work));
  }
}

bool is_memory(const void* address, std::size_t bytes) {
  const auto found = world().memory.find(address);
  return found != world().memory.end() && found->second >= bytes;
}

}  // namespace fakes

extern "C" {

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
  case cudaErrorNoDevice:
    return "cudaErrorNoDevice";
  case cudaErrorStreamCaptureUnsupported:
    return "cudaErrorStreamCaptureUnsupported";
  case cudaErrorStreamCaptureInvalidated:
    return "cudaErrorStreamCaptureInvalidated";
  case cudaErrorIllegalAddress:
    return "cudaErrorIllegalAddress";
  default:
    return "cudaErrorInvalidValue";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorNoDevice ? "no CUDA-capable device is detected" : "something is wrong";
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = world().devices;
  return world().devices == 0 ? cudaErrorNoDevice : cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current;
  return world().devices == 0 ? cudaErrorNoDevice : cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device >= world().devices) {
    return cudaErrorInvalidValue;
  }
  current = device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int /*device*/) {
  std::strcpy(properties->name, "Fake Orin");
  properties->major = 8;
  properties->minor = 7;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  return allocate(memory, bytes);
}
cudaError_t cudaFree(void* memory) {
  return release(memory);
}
cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  return allocate(memory, bytes);
}
cudaError_t cudaFreeHost(void* memory) {
  return release(memory);
}

cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t bytes, cudaMemcpyKind /*kind*/,
                            cudaStream_t stream) {
  fakes::enqueue(stream, [=] {
    if (!fakes::is_memory(target, bytes) || !fakes::is_memory(source, bytes)) {
      return false;
    }
    std::memcpy(target, source, bytes);
    return true;
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* target, int value, std::size_t bytes, cudaStream_t stream) {
  if (!fakes::is_current(stream)) {
    return cudaErrorInvalidResourceHandle;
  }
  fakes::enqueue(stream, [=] {
    if (!fakes::is_memory(target, bytes)) {
      return false;
    }
    std::memset(target, value, bytes);
    return true;
  });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned /*flags*/) {
  return make(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return destroy(stream);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (fakes::capturing(stream)) {
    stream->broken = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  return drain(stream);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) {
  return spoils_capture() ? cudaErrorStreamCaptureUnsupported : make(event);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return destroy(event);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (event->device != stream->device) {
    return cudaErrorInvalidResourceHandle;
  }
  event->stream = stream;
  event->passed = false;
  fakes::enqueue(stream, [event] {
    event->passed = true;
    event->time = world().time;
    return true;
  });
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return event->passed ? cudaSuccess : drain(event->stream);
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  if (!start->passed || !end->passed) {
    return cudaErrorInvalidValue;
  }
  *milliseconds = end->time - start->time;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode /*mode*/) {
  if (!fakes::is_current(stream)) {
    return cudaErrorInvalidResourceHandle;
  }
  fakes::note("capture");
  stream->recorded.clear();
  stream->broken = world().refuse_capture;
  world().captured = stream;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  world().captured = nullptr;
  if (stream->broken) {
    *graph = nullptr;
    return cudaErrorStreamCaptureInvalidated;
  }
  make(graph);
  (*graph)->work = std::move(stream->recorded);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long /*flags*/) {
  make(executable);
  (*executable)->work = graph->work;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  if (!fakes::is_current(stream)) {
    return cudaErrorInvalidResourceHandle;
  }
  fakes::note("launch");
  for (const Work& work : executable->work) {
    fakes::enqueue(stream, work);
  }
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return destroy(graph);
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return destroy(executable);
}
}
