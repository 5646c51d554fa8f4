// TensorRT and TensorRT-RTX: engines on an NVIDIA GPU, a whole frame as one CUDA graph. Uses only calls that TensorRT
// has since 10.3 (JetPack 6.2), and the runtime configuration of RTX.
#include <NvInfer.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <utility>

#include "backends.hpp"
#include "device.hpp"
#include "engine_cache.hpp"
#include "frames.hpp"
#include "rvos_edge/error.hpp"
#include "tensorrt_context.hpp"
#include "words.hpp"

namespace rvos_edge {
namespace {

#ifdef RVOS_EDGE_WITH_TENSORRT_RTX
constexpr const char* flavour = "tensorrt-rtx";
constexpr const char* product = "TensorRT-RTX";
#else
constexpr const char* flavour = "tensorrt";
constexpr const char* product = "TensorRT";
#endif
constexpr const char* rebuild = "delete it, and build it again";

constexpr std::array<std::pair<DType, nvinfer1::DataType>, 4> data_types = {{
    {DType::uint8, nvinfer1::DataType::kUINT8},
    {DType::int64, nvinfer1::DataType::kINT64},
    {DType::float16, nvinfer1::DataType::kHALF},
    {DType::float32, nvinfer1::DataType::kFLOAT},
}};

/// Keeps the last error for messages; TensorRT may call it from any thread.
class Log final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (severity == Severity::kERROR || severity == Severity::kINTERNAL_ERROR) {
      try {
        const std::lock_guard<std::mutex> lock(mutex_);
        ++errors_;
        last_ = one_line(message, 300);
      } catch (...) {
        // Without memory the reason is lost.
      }
    }
  }

  [[nodiscard]] std::string reason() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return last_.empty() ? "no reason given" : last_;
  }
  /// Number of errors so far.
  [[nodiscard]] int errors() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return errors_;
  }

 private:
  mutable std::mutex mutex_;
  std::string last_;
  int errors_ = 0;
};

/// Parts that the graphs of a backend share.
struct Shared {
  std::shared_ptr<Device> device;
  Log& log;
  Board& board;
  Scratch& scratch;
};

nvinfer1::Dims to_dims(const Shape& shape) {
  nvinfer1::Dims dims{};
  dims.nbDims = static_cast<std::int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), dims.d);
  return dims;
}

/// An engine whose inputs and outputs are slots.
///
/// There is one context per combination of buffers, because a context must not change after a graph was captured from
/// it.
class TensorRtGraph final : public Graph {
 public:
  TensorRtGraph(std::string path, const GraphSpec& spec, std::unique_ptr<nvinfer1::ICudaEngine> engine, Shared shared)
      : path_(std::move(path)), engine_(std::move(engine)), contexts_(*engine_, path_), shared_(std::move(shared)),
        slots_(declare_slots(shared_.board, spec)), inputs_(spec.inputs.size()) {}

  void run() override {
    const CurrentDevice here = shared_.device->current();
    Bound& bound = find_bound();
    const BufferPtr scratch = shared_.scratch.at_least(bound.needs);
    if (scratch && scratch != bound.scratch) {
      bound.context->setDeviceMemoryV2(scratch->address(), static_cast<std::int64_t>(scratch->bytes()));
      bound.scratch = scratch;
    }
    must(bound.context->enqueueV3(shared_.device->stream()), "cannot be run", "start again, or use device 'cpu'");
  }

  /// Check that the contexts can be part of a CUDA graph.
  /// @throws UserError  TensorRT-RTX says that they cannot.
  void check_capture() const {
    for (const Bound& bound : bound_) {
      if (!is_capturable(*bound.context, shared_.device->stream(), 0)) {
        throw UserError(ErrorCode::engine, path_ + " cannot be part of a CUDA graph.");
      }
    }
  }

  /// Keep what TensorRT-RTX compiled.
  void save_cache() { contexts_.save(); }

 private:
  /// A context with the addresses of one combination of buffers; only its scratch memory changes.
  struct Bound {
    std::vector<BufferPtr> buffers;
    std::unique_ptr<nvinfer1::IExecutionContext> context;
    std::size_t needs = 0;
    BufferPtr scratch;
  };

  Bound& find_bound() {
    const auto fits = [this](const Bound& bound) {
      return std::equal(bound.buffers.begin(), bound.buffers.end(), slots_.begin(),
                        [](const BufferPtr& buffer, const Board::Slot* slot) { return buffer == slot->buffer; });
    };
    const auto known = std::find_if(bound_.begin(), bound_.end(), fits);
    return known == bound_.end() ? bind() : *known;
  }

  Bound& bind() {
    const std::set<const Buffer*> live = shared_.board.buffers();
    const auto dead = [&live](const Bound& bound) {
      return std::any_of(bound.buffers.begin(), bound.buffers.end(),
                         [&live](const BufferPtr& buffer) { return live.count(buffer.get()) == 0; });
    };
    bound_.erase(std::remove_if(bound_.begin(), bound_.end(), dead), bound_.end());
    Bound bound;
    bound.context = contexts_.make();
    must(bound.context != nullptr, "gets no execution context");
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      const Board::Slot& slot = *slots_[i];
      const char* name = slot.spec.name.c_str();
      const auto& shape = slot.spec.shape;
      const bool open = std::any_of(shape.begin(), shape.end(), [](const Dim& dim) { return !dim.symbol.empty(); });
      if (i < inputs_ && open) {
        must(bound.context->setInputShape(name, to_dims(slot.buffer->shape())),
             "takes no '" + slot.spec.name + "' of this shape");
      }
      must(bound.context->setTensorAddress(name, slot.buffer->address()),
           "takes no address for '" + slot.spec.name + "'");
      bound.buffers.push_back(slot.buffer);
    }
    const int errors = shared_.log.errors();
    bound.needs = bound.context->updateDeviceMemorySizeForShapes();
    // 0 means either that no scratch memory is needed or that the call failed, which TensorRT logs.
    must(bound.needs != 0 || shared_.log.errors() == errors, "does not tell its scratch memory");
    bound_.push_back(std::move(bound));
    return bound_.back();
  }

  void must(bool worked, const std::string& problem, const char* remedy = rebuild) const {
    if (!worked) {
      throw UserError(ErrorCode::engine, path_ + " " + problem + " (" + shared_.log.reason() + "); " + remedy + ".");
    }
  }

  std::string path_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  ContextMaker contexts_;
  Shared shared_;
  std::vector<const Board::Slot*> slots_;
  std::size_t inputs_;
  std::vector<Bound> bound_;
};

/// Verify that an engine has the tensors of the manifest.
void check_tensors(const std::string& path, const nvinfer1::ICudaEngine& engine, const GraphSpec& spec) {
  using Mode = nvinfer1::TensorIOMode;
  std::vector<std::string> found;
  found.reserve(static_cast<std::size_t>(engine.getNbIOTensors()));
  for (std::int32_t i = 0; i < engine.getNbIOTensors(); ++i) {
    found.emplace_back(engine.getIOTensorName(i));
  }
  std::vector<std::string> expected;
  bool modes_fit = true;
  for (const auto& [mode, tensors] : {std::pair(Mode::kINPUT, &spec.inputs), std::pair(Mode::kOUTPUT, &spec.outputs)}) {
    for (const TensorSpec& tensor : *tensors) {
      expected.push_back(tensor.name);
      const bool there = std::find(found.begin(), found.end(), tensor.name) != found.end();
      modes_fit = modes_fit && there && engine.getTensorIOMode(tensor.name.c_str()) == mode;
    }
  }
  if (!modes_fit || sorted(found) != sorted(expected)) {
    throw UserError(ErrorCode::engine, path + " has the tensors " + list_text(sorted(found)) +
                                           " where manifest.json has " + list_text(sorted(expected)) + "; " + rebuild +
                                           ".");
  }
  for (const auto* tensors : {&spec.inputs, &spec.outputs}) {
    for (const TensorSpec& tensor : *tensors) {
      const nvinfer1::DataType type = engine.getTensorDataType(tensor.name.c_str());
      const nvinfer1::Dims dims = engine.getTensorShape(tensor.name.c_str());
      const Shape shape(dims.d, dims.d + std::max(dims.nbDims, 0));
      // NOLINTNEXTLINE(readability-qualified-auto): an iterator, which is a pointer only in some libraries
      const auto known =
          std::find_if(data_types.begin(), data_types.end(), [type](const auto& pair) { return pair.second == type; });
      if (known == data_types.end() || known->first != tensor.dtype || !fits_shape(shape, tensor)) {
        const std::string there =
            known == data_types.end() ? "of an unknown type " : std::string(dtype_name(known->first));
        throw UserError(ErrorCode::engine, path + ": tensor '" + tensor.name + "' is " + there + shape_text(shape) +
                                               " where manifest.json has " + std::string(dtype_name(tensor.dtype)) +
                                               shape_text(tensor.shape) + "; " + rebuild + ".");
      }
    }
  }
}

/// Backend of the text graph, which runs once per query, with inputs of changing length: it stays on the host.
std::unique_ptr<Backend> make_host(const BackendOptions& options) {
#if defined(RVOS_EDGE_WITH_ONNXRUNTIME)
  return make_onnxruntime(options);
#elif defined(RVOS_EDGE_WITH_OPENVINO)
  return make_openvino(options, false);
#else
  static_cast<void>(options);
  throw UserError(ErrorCode::unsupported_backend,
                  std::string("backend '") + flavour +
                      "' needs ONNX Runtime or OpenVINO for the text graph; build one of them in.");
#endif
}

std::string version_text() {
  const std::int32_t version = getInferLibVersion();
  // 10.3.0 is 100300, and TensorRT-RTX 1.7.1 is 10701.
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

/// Engines of a bundle, built by `rvos-edge build` for this machine's GPU; the text graph stays on the host.
class TensorRtBackend final : public Backend {
 public:
  TensorRtBackend(Bundle bundle, const BackendOptions& options)
      : bundle_(std::move(bundle)), gpu_(find_gpu(gpu_index(options.device))), version_(version_text()),
        name_(std::string(product) + " " + version_ + " (" + gpu_.name + ")"),
        asked_(options.reason.empty() ? std::string(flavour) + " was requested" : options.reason), reason_(asked_),
        device_(std::make_shared<Device>(gpu_index(options.device))),
        board_([device = device_](DType dtype, const Shape& shape) -> BufferPtr {
          return std::make_shared<DeviceBuffer>(device, dtype, shape);
        }),
        scratch_(device_), frames_(device_, board_, scratch_, options.record,
                                   {[this] {
                                      for (const TensorRtGraph* graph : graphs_) {
                                        graph->check_capture();
                                      }
                                    },
                                    [this] {
                                      for (TensorRtGraph* graph : graphs_) {
                                        graph->save_cache();
                                      }
                                    }}),
        host_(make_host(options)) {
    const CurrentDevice here = device_->current();
    runtime_.reset(nvinfer1::createInferRuntime(log_));
    if (!runtime_) {
      throw UserError(ErrorCode::unsupported_backend,
                      std::string(product) + " cannot be started (" + log_.reason() + "); use device 'cpu'.");
    }
  }

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] const std::string& reason() const noexcept override { return reason_; }
  [[nodiscard]] Board& board() noexcept override { return board_; }

  std::unique_ptr<Graph> load(const std::string& name, const std::filesystem::path& /*path*/,
                              const GraphSpec& spec) override {
    const std::filesystem::path path = find_engine(bundle_, name, {flavour, version_, gpu_.name, gpu_.capability});
    const CurrentDevice here = device_->current();
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> plan{std::istreambuf_iterator<char>(file), {}};
    std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    if (!engine) {
      throw UserError(ErrorCode::engine, path.string() + " cannot be loaded by " + product + " " + version_ + " (" +
                                             log_.reason() + "); " + rebuild + ".");
    }
    check_tensors(path.string(), *engine, spec);
    auto graph = std::make_unique<TensorRtGraph>(path.string(), spec, std::move(engine),
                                                 Shared{device_, log_, board_, scratch_});
    graphs_.push_back(graph.get());
    return graph;
  }

  std::unique_ptr<HostGraph> load_host(const std::filesystem::path& path, const GraphSpec& spec) override {
    return host_->load_host(path, spec);
  }

  void frame(const FrameKey& key, const Work& work) override {
    const CurrentDevice here = device_->current();
    const bool fine = frames_.problem().empty();
    frames_.run(key, work);
    if (fine && !frames_.problem().empty()) {
      reason_ = asked_ + ", without CUDA graphs (" + frames_.problem() + ")";
    }
  }

  void timings(std::vector<Timing>& target) override {
    const CurrentDevice here = device_->current();
    frames_.timings(target);
  }

 private:
  Bundle bundle_;
  Gpu gpu_;
  std::string version_;
  std::string name_;
  std::string asked_;
  std::string reason_;
  Log log_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::shared_ptr<Device> device_;
  Board board_;
  Scratch scratch_;
  /// The loaded graphs, which live as long as frames are run.
  std::vector<TensorRtGraph*> graphs_;
  DeviceFrames frames_;
  std::unique_ptr<Backend> host_;
};

}  // namespace

std::unique_ptr<Backend> make_tensorrt(const Bundle& bundle, const BackendOptions& options) {
  return std::make_unique<TensorRtBackend>(bundle, options);
}

bool has_gpu(int index) {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > index;
}

}  // namespace rvos_edge
