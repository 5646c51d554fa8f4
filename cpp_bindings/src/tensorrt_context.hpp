/// @file
/// Execution contexts of TensorRT and TensorRT-RTX.
#pragma once

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace rvos_edge {

/// Makes execution contexts of an engine, whose scratch memory the caller provides.
///
/// TensorRT-RTX compiles kernels for the GPU when it makes a context. A runtime cache beside the engine keeps them; it
/// is the file that the Python runtime uses.
class ContextMaker {
 public:
  using Context = std::unique_ptr<nvinfer1::IExecutionContext>;
  static constexpr auto strategy = nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED;

#ifdef RVOS_EDGE_WITH_TENSORRT_RTX
  ContextMaker(nvinfer1::ICudaEngine& engine, std::filesystem::path engine_path)
      : engine_(engine), path_(engine_path.replace_extension(".runtime-cache")), config_(engine.createRuntimeConfig()) {
    if (!config_) {
      return;
    }
    config_->setExecutionContextAllocationStrategy(strategy);
    // A captured frame would keep the generic kernels that run until those for its shapes are compiled.
    config_->setDynamicShapesKernelSpecializationStrategy(nvinfer1::DynamicShapesKernelSpecializationStrategy::kEAGER);
    cache_.reset(config_->createRuntimeCache());
    if (cache_) {
      std::ifstream file(path_, std::ios::binary);
      const std::vector<char> kept{std::istreambuf_iterator<char>(file), {}};
      // TensorRT ignores a cache of another GPU or version.
      static_cast<void>(!kept.empty() && cache_->deserialize(kept.data(), kept.size()));
      static_cast<void>(config_->setRuntimeCache(*cache_));
    }
  }

  Context make() {
    unsaved_ = true;
    return Context(config_ ? engine_.createExecutionContext(config_.get()) : nullptr);
  }

  /// Write the cache if a context was made since. An error costs only the time to compile again.
  void save() {
    if (!cache_ || !std::exchange(unsaved_, false)) {
      return;
    }
    const std::unique_ptr<nvinfer1::IHostMemory> bytes(cache_->serialize());
    if (!bytes) {
      return;
    }
    // Renamed when whole; other processes may write the same cache.
    const std::filesystem::path part = path_.string() + "." + std::to_string(std::random_device{}()) + ".part";
    std::ofstream file(part, std::ios::binary);
    file.write(static_cast<const char*>(bytes->data()), static_cast<std::streamsize>(bytes->size()));
    file.close();
    std::error_code failed;
    if (file) {
      std::filesystem::rename(part, path_, failed);
    }
    if (!file || failed) {
      std::filesystem::remove(part, failed);
    }
  }

 private:
  nvinfer1::ICudaEngine& engine_;
  std::filesystem::path path_;
  std::unique_ptr<nvinfer1::IRuntimeConfig> config_;
  std::unique_ptr<nvinfer1::IRuntimeCache> cache_;
  bool unsaved_ = false;
#else
  ContextMaker(nvinfer1::ICudaEngine& engine, const std::filesystem::path& /*engine_path*/) : engine_(engine) {}
  Context make() {
    return Context(engine_.createExecutionContext(strategy));
  }
  void save() {}

 private:
  nvinfer1::ICudaEngine& engine_;
#endif
};

/// Tell if a context can be captured. Only TensorRT-RTX from 1.2 on can tell; others try.
template <class Context>
auto is_capturable(Context& context, cudaStream_t stream, int) -> decltype(context.isStreamCapturable(stream)) {
  return context.isStreamCapturable(stream);
}
template <class Context>
bool is_capturable(Context& /*context*/, cudaStream_t /*stream*/, long) {
  return true;
}

}  // namespace rvos_edge
