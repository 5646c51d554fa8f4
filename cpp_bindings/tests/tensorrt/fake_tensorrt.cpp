// TensorRT without a GPU: an engine file holds the path of an ONNX file, which OpenVINO runs on the memory of the fake
// CUDA. Contexts are as strict as the real ones: every address and every dynamic shape must be set, scratch memory must
// exist, the first run after a change cannot be captured, and a changed context invalidates the graphs captured from
// it.
//
// As TensorRT-RTX it also compiles: a context can be captured only if its kernels are compiled eagerly, and if the
// engine was built with REQUIRE_USER_ALLOCATION or has fixed shapes. An engine file that ends with runtime_allocation
// was built without that flag.
#include <NvInfer.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <openvino/openvino.hpp>
#include <string>
#include <utility>

#include "fakes.hpp"

namespace {

using namespace nvinfer1;

DataType data_type(const ov::element::Type& type) {
  return type == ov::element::u8    ? DataType::kUINT8
         : type == ov::element::i64 ? DataType::kINT64
         : type == ov::element::f16 ? DataType::kHALF
                                    : DataType::kFLOAT;
}

struct Model {
  std::string name;
  ov::CompiledModel compiled;
  std::vector<ov::Output<const ov::Node>> ports;
  std::vector<std::string> names;
  std::size_t inputs = 0;
  ILogger& logger;
  bool allocates = false;
  int device = fakes::current_device();

  [[nodiscard]] std::size_t index(const std::string& tensor) const {
    return static_cast<std::size_t>(std::find(names.begin(), names.end(), tensor) - names.begin());
  }
};

class FakeContext final : public IExecutionContext {
 public:
  FakeContext(std::shared_ptr<Model> model, bool eager)
      : model_(std::move(model)), request_(model_->compiled.create_infer_request()), eager_(eager) {}

  /// Works as the method of TensorRT-RTX; a run during a capture is refused otherwise.
  [[nodiscard]] bool capturable() const noexcept {
    const bool dynamic = std::any_of(model_->ports.begin(), model_->ports.end(),
                                     [](const auto& port) { return port.get_partial_shape().is_dynamic(); });
    return !dynamic || (eager_ && !model_->allocates);
  }
#ifdef TRT_MAJOR_RTX
  bool isStreamCapturable(cudaStream_t /*stream*/) const noexcept override {
    return capturable();
  }
#endif

  bool setInputShape(const char* name, const Dims& dims) noexcept override {
    change();
    shapes_[name] = ov::Shape(dims.d, dims.d + dims.nbDims);
    return true;
  }

  bool setTensorAddress(const char* name, void* data) noexcept override {
    change();
    addresses_[name] = data;
    return true;
  }

  std::size_t updateDeviceMemorySizeForShapes() noexcept override {
    if (fakes::memory_size_refused() || !shapes_are_set()) {
      refuse("the shapes are not complete");
      return 0;
    }
    // Graphs with more tensors need more, so that scratch memory grows during the first frame. One graph needs none.
    needs_ = model_->name == "flow_up" ? 0 : 256 * model_->names.size();
    return needs_;
  }

  void setDeviceMemoryV2(void* memory, std::int64_t size) noexcept override {
    change();
    scratch_ = memory;
    scratch_size_ = static_cast<std::size_t>(size);
  }

  bool enqueueV3(cudaStream_t stream) noexcept override {
    fakes::note("execute " + model_->name);
    if (!fakes::is_current(stream) || model_->device != fakes::current_device()) {
      return refuse("the engine or the stream is of another device");
    }
    if (addresses_.size() != model_->names.size()) {
      return refuse("a tensor has no address");
    }
    if (!shapes_are_set()) {
      return refuse("an input has no shape");
    }
    if (needs_ != 0 && (scratch_size_ < needs_ || !fakes::is_memory(scratch_, needs_))) {
      return refuse("there is too little scratch memory");
    }
    if (fakes::capturing(stream) && (!warm_ || !capturable())) {
      return refuse("operation not permitted when stream is capturing");
    }
    warm_ = true;
    fakes::enqueue(stream, [this, version = version_, life = std::weak_ptr<int>(life_)] {
      // The context must exist, unchanged.
      return !life.expired() && version == version_ && infer();
    });
    return true;
  }

 private:
  [[nodiscard]] bool shapes_are_set() const {
    for (std::size_t i = 0; i < model_->inputs; ++i) {
      if (model_->ports[i].get_partial_shape().is_dynamic() && shapes_.count(model_->names[i]) == 0) {
        return false;
      }
    }
    return true;
  }

  bool refuse(const std::string& why) {
    model_->logger.log(ILogger::Severity::kERROR, (model_->name + ": " + why).c_str());
    return false;
  }

  void change() {
    ++version_;
    warm_ = false;
  }

  bool infer() {
    if (needs_ != 0) {
      std::memset(scratch_, 0xAB, needs_);
    }
    for (std::size_t i = 0; i < model_->inputs; ++i) {
      const auto& port = model_->ports[i];
      const std::string& name = model_->names[i];
      const ov::Shape shape = port.get_partial_shape().is_static() ? port.get_shape() : shapes_.at(name);
      const ov::Tensor tensor(port.get_element_type(), shape, addresses_.at(name));
      if (!fakes::is_memory(tensor.data(), tensor.get_byte_size())) {
        return false;
      }
      request_.set_tensor(port, tensor);
    }
    request_.infer();
    for (std::size_t i = model_->inputs; i < model_->ports.size(); ++i) {
      const ov::Tensor made = request_.get_tensor(model_->ports[i]);
      void* target = addresses_.at(model_->names[i]);
      if (!fakes::is_memory(target, made.get_byte_size())) {
        return false;
      }
      std::memcpy(target, made.data(), made.get_byte_size());
    }
    return true;
  }

  std::shared_ptr<Model> model_;
  ov::InferRequest request_;
  bool eager_;
  std::map<std::string, void*> addresses_;
  std::map<std::string, ov::Shape> shapes_;
  void* scratch_ = nullptr;
  std::size_t scratch_size_ = 0;
  std::size_t needs_ = 0;
  int version_ = 0;
  bool warm_ = false;
  std::shared_ptr<int> life_ = std::make_shared<int>();
};

#ifdef TRT_MAJOR_RTX
constexpr bool lazy_by_default = true;

class FakeMemory final : public IHostMemory {
 public:
  explicit FakeMemory(std::string bytes) : bytes_(std::move(bytes)) {}
  void* data() const noexcept override { return const_cast<char*>(bytes_.data()); }
  std::size_t size() const noexcept override { return bytes_.size(); }

 private:
  std::string bytes_;
};

/// Names of the engines whose kernels are compiled, between commas.
class FakeCache final : public IRuntimeCache {
 public:
  IHostMemory* serialize() const noexcept override { return new FakeMemory("kernels:" + names_); }
  bool deserialize(const void* blob, std::size_t size) noexcept override {
    const std::string bytes(static_cast<const char*>(blob), size);
    if (bytes.rfind("kernels:", 0) != 0) {
      return false;
    }
    names_ = bytes.substr(8);
    return true;
  }
  void compile(const std::string& name) const {
    if (names_.find("," + name + ",") == std::string::npos) {
      fakes::note("compile " + name);
      names_ += "," + name + ",";
    }
  }

 private:
  mutable std::string names_;
};

class FakeConfig final : public IRuntimeConfig {
 public:
  void setExecutionContextAllocationStrategy(ExecutionContextAllocationStrategy strategy) noexcept override {
    user_managed = strategy == ExecutionContextAllocationStrategy::kUSER_MANAGED;
  }
  void
  setDynamicShapesKernelSpecializationStrategy(DynamicShapesKernelSpecializationStrategy strategy) noexcept override {
    eager = strategy == DynamicShapesKernelSpecializationStrategy::kEAGER;
  }
  IRuntimeCache* createRuntimeCache() const noexcept override { return new FakeCache; }
  bool setRuntimeCache(const IRuntimeCache& given) noexcept override {
    cache = static_cast<const FakeCache*>(&given);
    return true;
  }

  bool user_managed = false;
  bool eager = false;
  const FakeCache* cache = nullptr;
};
#else
constexpr bool lazy_by_default = false;
#endif

class FakeEngine final : public ICudaEngine {
 public:
  explicit FakeEngine(std::shared_ptr<Model> model) : model_(std::move(model)) {}

  std::int32_t getNbIOTensors() const noexcept override { return static_cast<std::int32_t>(model_->names.size()); }
  const char* getIOTensorName(std::int32_t index) const noexcept override {
    return model_->names[static_cast<std::size_t>(index)].c_str();
  }
  TensorIOMode getTensorIOMode(const char* name) const noexcept override {
    return model_->index(name) < model_->inputs ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  }
  DataType getTensorDataType(const char* name) const noexcept override {
    return data_type(model_->ports[model_->index(name)].get_element_type());
  }
  Dims getTensorShape(const char* name) const noexcept override {
    Dims dims{};
    for (const auto& extent : model_->ports[model_->index(name)].get_partial_shape()) {
      dims.d[dims.nbDims++] = extent.is_static() ? extent.get_length() : -1;
    }
    return dims;
  }
  IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override {
    const bool user_managed = strategy == ExecutionContextAllocationStrategy::kUSER_MANAGED;
    return user_managed ? new FakeContext(model_, !lazy_by_default) : nullptr;
  }
#ifdef TRT_MAJOR_RTX
  IRuntimeConfig* createRuntimeConfig() noexcept override {
    return new FakeConfig;
  }
  IExecutionContext* createExecutionContext(IRuntimeConfig* given) noexcept override {
    const auto& config = static_cast<const FakeConfig&>(*given);
    if (config.cache != nullptr) {
      config.cache->compile(model_->name);
    }
    return config.user_managed ? new FakeContext(model_, config.eager) : nullptr;
  }
#endif

 private:
  std::shared_ptr<Model> model_;
};

/// The graph of a file, compiled once for all tests: under a sanitizer that takes most of their time. Never destroyed,
/// because OpenVINO may be unloaded first.
ov::CompiledModel compile(const std::filesystem::path& path) {
  static auto& core = *new ov::Core;
  static auto& known = *new std::map<std::pair<std::string, std::uintmax_t>, ov::CompiledModel>;
  const auto key = std::pair(path.filename().string(), std::filesystem::file_size(path));
  if (known.find(key) == known.end()) {
    known[key] = core.compile_model(path.string(), "CPU", ov::hint::inference_precision(ov::element::f32));
  }
  return known[key];
}

class FakeRuntime final : public IRuntime {
 public:
  explicit FakeRuntime(ILogger& logger) : logger_(logger) {}

  ICudaEngine* deserializeCudaEngine(const void* blob, std::size_t size) noexcept override {
    try {
      std::string text(static_cast<const char*>(blob), size);
      const std::string mark = " runtime_allocation";
      const bool allocates = text.size() > mark.size() && text.substr(text.size() - mark.size()) == mark;
      const std::filesystem::path path(allocates ? text.substr(0, text.size() - mark.size()) : text);
      auto model = std::make_shared<Model>(Model{path.stem().string(), {}, {}, {}, 0, logger_, allocates});
      model->compiled = compile(path);
      for (const auto& port : model->compiled.inputs()) {
        model->ports.push_back(port);
      }
      model->inputs = model->ports.size();
      for (const auto& port : model->compiled.outputs()) {
        model->ports.push_back(port);
      }
      for (const auto& port : model->ports) {
        model->names.push_back(port.get_any_name());
      }
      return new FakeEngine(model);
    } catch (const std::exception& error) {
      logger_.log(ILogger::Severity::kERROR, error.what());
      return nullptr;
    }
  }

 private:
  ILogger& logger_;
};

}  // namespace

nvinfer1::IRuntime* nvinfer1::createInferRuntime(ILogger& logger) noexcept {
  return new FakeRuntime(logger);
}

extern "C" std::int32_t getInferLibVersion() noexcept {
#ifdef TRT_MAJOR_RTX
  return 10701;
#else
  return 100300;
#endif
}
