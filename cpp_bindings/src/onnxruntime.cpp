// ONNX Runtime on the CPU, through its C interface, which stays the same from version to version.
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "backends.hpp"
#include "rvos_edge/error.hpp"
#include "words.hpp"

namespace rvos_edge {
namespace {

/// API of ONNX Runtime 1.18, which newer versions offer too.
constexpr std::uint32_t api_version = 18;

/// Stop ONNX Runtime from sending telemetry, which it does from version 1.29 on. It reads the variable in CreateEnv. A
/// value that the host program set stays.
void disable_telemetry() {
#ifdef _WIN32
  if (std::getenv("ORT_DISABLE_TELEMETRY") == nullptr) {
    _putenv_s("ORT_DISABLE_TELEMETRY", "1");
  }
#else
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // NOLINT(concurrency-mt-unsafe)
#endif
}

/// The table of functions.
/// @throws UserError  The library is older than `api_version`.
const OrtApi& find_api() {
  const OrtApiBase* base = OrtGetApiBase();
  const OrtApi* api = base->GetApi(api_version);
  if (api == nullptr) {
    throw UserError(ErrorCode::unsupported_backend, "ONNX Runtime " + std::string(base->GetVersionString()) +
                                                        " is too old; install 1.18 or newer, or use another backend.");
  }
  return *api;
}

template <class T>
using Release = void(ORT_API_CALL*)(T*);
/// An object of ONNX Runtime with the function that releases it.
template <class T>
using Owned = std::unique_ptr<T, Release<T>>;

/// Error of ONNX Runtime, caught within this file.
struct OrtProblem {
  std::string detail;
};

void check(const OrtApi& api, OrtStatus* status) {
  if (status != nullptr) {
    const Owned<OrtStatus> owned(status, api.ReleaseStatus);
    throw OrtProblem{one_line(api.GetErrorMessage(status), 200)};
  }
}

constexpr std::array<std::pair<DType, ONNXTensorElementDataType>, 4> element_types = {{
    {DType::uint8, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
    {DType::int64, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {DType::float16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16},
    {DType::float32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
}};

ONNXTensorElementDataType element_type(DType dtype) {
  return std::find_if(element_types.begin(), element_types.end(), [dtype](const auto& t) { return t.first == dtype; })
      ->second;
}

Owned<OrtValue> make_value(const OrtApi& api, const OrtMemoryInfo& where, DType dtype, const Shape& shape, void* data) {
  OrtValue* value = nullptr;
  check(api, api.CreateTensorWithDataAsOrtValue(&where, data, count(shape) * dtype_bytes(dtype), shape.data(),
                                                shape.size(), element_type(dtype), &value));
  return {value, api.ReleaseValue};
}

/// Host memory with an ONNX Runtime value for it, so that a run allocates nothing.
class OrtBuffer final : public HostBuffer {
 public:
  OrtBuffer(const OrtApi& api, const OrtMemoryInfo& where, DType dtype, const Shape& shape)
      : HostBuffer(dtype, shape), value_(make_value(api, where, dtype, shape, address())) {}
  [[nodiscard]] OrtValue* value() const noexcept { return value_.get(); }

 private:
  Owned<OrtValue> value_;
};

/// A session with the names of its tensors in the order of the manifest.
class Session {
 public:
  Session(const OrtApi& api, Owned<OrtSession> session, const GraphSpec& spec, std::string path)
      : api_(api), session_(std::move(session)), path_(std::move(path)), specs_{spec.inputs, spec.outputs} {
    // The names live in this object, which is neither copied nor moved.
    for (const TensorSpec& tensor : specs_[0]) {
      inputs_.push_back(tensor.name.c_str());
    }
    for (const TensorSpec& tensor : specs_[1]) {
      outputs_.push_back(tensor.name.c_str());
    }
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() = default;

  /// @param outputs  Null for outputs that ONNX Runtime allocates.
  void run(const std::vector<const OrtValue*>& inputs, std::vector<OrtValue*>& outputs) {
    try {
      check(api_, api_.Run(session_.get(), nullptr, inputs_.data(), inputs.data(), inputs_.size(), outputs_.data(),
                           outputs_.size(), outputs.data()));
    } catch (const OrtProblem& problem) {
      throw UserError(ErrorCode::engine,
                      path_ + " cannot be run by ONNX Runtime (" + problem.detail + "); export the bundle again.");
    }
  }

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] const std::vector<TensorSpec>& inputs() const noexcept { return specs_[0]; }
  [[nodiscard]] const std::vector<TensorSpec>& outputs() const noexcept { return specs_[1]; }

 private:
  const OrtApi& api_;
  Owned<OrtSession> session_;
  std::string path_;
  std::array<std::vector<TensorSpec>, 2> specs_;
  std::vector<const char*> inputs_;
  std::vector<const char*> outputs_;
};

/// A session whose inputs and outputs are slots; a run uses the buffers that they hold now.
class OrtGraph final : public Graph {
 public:
  OrtGraph(std::unique_ptr<Session> session, const Board& board) : session_(std::move(session)) {
    for (const TensorSpec& tensor : session_->inputs()) {
      input_slots_.push_back(&board.slot(tensor.name));
    }
    for (const TensorSpec& tensor : session_->outputs()) {
      output_slots_.push_back(&board.slot(tensor.name));
    }
    inputs_.resize(input_slots_.size());
    outputs_.resize(output_slots_.size());
  }

  void run() override {
    const auto value = [](const Board::Slot* slot) { return static_cast<const OrtBuffer&>(*slot->buffer).value(); };
    std::transform(input_slots_.begin(), input_slots_.end(), inputs_.begin(), value);
    std::transform(output_slots_.begin(), output_slots_.end(), outputs_.begin(), value);
    session_->run(inputs_, outputs_);
  }

 private:
  std::unique_ptr<Session> session_;
  std::vector<const Board::Slot*> input_slots_;
  std::vector<const Board::Slot*> output_slots_;
  std::vector<const OrtValue*> inputs_;
  std::vector<OrtValue*> outputs_;
};

/// A session that runs on host arrays.
class OrtHostGraph final : public HostGraph {
 public:
  OrtHostGraph(const OrtApi& api, const OrtMemoryInfo& where, std::unique_ptr<Session> session)
      : api_(api), where_(where), session_(std::move(session)) {}

  std::vector<HostTensor> run(const std::vector<HostTensor>& inputs) override {
    std::vector<Owned<OrtValue>> values;
    std::vector<const OrtValue*> ordered;
    try {
      for (const TensorSpec& spec : session_->inputs()) {
        const auto given = std::find_if(inputs.begin(), inputs.end(),
                                        [&spec](const HostTensor& tensor) { return tensor.name == spec.name; });
        if (given == inputs.end()) {
          throw std::invalid_argument("input '" + spec.name + "' is not given");
        }
        // ONNX Runtime only reads inputs.
        void* data = const_cast<std::byte*>(given->data.data());
        values.push_back(make_value(api_, where_, given->dtype, given->shape, data));
        ordered.push_back(values.back().get());
      }
      std::vector<OrtValue*> made(session_->outputs().size(), nullptr);
      session_->run(ordered, made);
      std::vector<Owned<OrtValue>> owned;
      owned.reserve(made.size());
      for (OrtValue* value : made) {
        owned.emplace_back(value, api_.ReleaseValue);
      }
      std::vector<HostTensor> results;
      for (std::size_t i = 0; i < owned.size(); ++i) {
        results.push_back(copy(*owned[i], session_->outputs()[i]));
      }
      return results;
    } catch (const OrtProblem& problem) {
      throw UserError(ErrorCode::engine, session_->path() + " cannot be run by ONNX Runtime (" + problem.detail +
                                             "); export the bundle again.");
    }
  }

 private:
  [[nodiscard]] HostTensor copy(OrtValue& value, const TensorSpec& spec) const {
    OrtTensorTypeAndShapeInfo* described = nullptr;
    check(api_, api_.GetTensorTypeAndShape(&value, &described));
    const Owned<OrtTensorTypeAndShapeInfo> info(described, api_.ReleaseTensorTypeAndShapeInfo);
    std::size_t rank = 0;
    check(api_, api_.GetDimensionsCount(info.get(), &rank));
    HostTensor result{spec.name, spec.dtype, Shape(rank), {}};
    check(api_, api_.GetDimensions(info.get(), result.shape.data(), rank));
    // One query at a time: a symbolic extent is 1.
    const bool fits =
        std::equal(result.shape.begin(), result.shape.end(), spec.shape.begin(), spec.shape.end(),
                   [](std::int64_t extent, const Dim& dim) { return extent == (dim.symbol.empty() ? dim.extent : 1); });
    if (!fits) {
      throw UserError(ErrorCode::engine, session_->path() + " made '" + spec.name +
                                             "' of another shape than manifest.json says; export the bundle again.");
    }
    void* data = nullptr;
    check(api_, api_.GetTensorMutableData(&value, &data));
    const auto* bytes = static_cast<const std::byte*>(data);
    result.data.assign(bytes, bytes + count(result.shape) * dtype_bytes(spec.dtype));
    return result;
  }

  const OrtApi& api_;
  const OrtMemoryInfo& where_;
  std::unique_ptr<Session> session_;
};

/// Verifies that a session has the tensors of the manifest.
class Inspector {
 public:
  Inspector(const OrtApi& api, const OrtSession& session, const std::string& path)
      : api_(api), session_(session), path_(path) {}

  void check_inputs(const std::vector<TensorSpec>& specs) const {
    check_tensors(specs, "input", api_.SessionGetInputCount, api_.SessionGetInputName, api_.SessionGetInputTypeInfo);
  }
  void check_outputs(const std::vector<TensorSpec>& specs) const {
    check_tensors(specs, "output", api_.SessionGetOutputCount, api_.SessionGetOutputName,
                  api_.SessionGetOutputTypeInfo);
  }

 private:
  template <class Count, class Name, class Type>
  void check_tensors(const std::vector<TensorSpec>& specs, const char* kind, Count count_of, Name name_of,
                     Type type_of) const {
    std::size_t found = 0;
    check(api_, count_of(&session_, &found));
    OrtAllocator* allocator = nullptr;
    check(api_, api_.GetAllocatorWithDefaultOptions(&allocator));
    std::vector<std::string> names;
    for (std::size_t i = 0; i < found; ++i) {
      char* name = nullptr;
      check(api_, name_of(&session_, i, allocator, &name));
      names.emplace_back(name);
      check(api_, api_.AllocatorFree(allocator, name));
    }
    std::vector<std::string> wanted;
    wanted.reserve(specs.size());
    for (const TensorSpec& spec : specs) {
      wanted.push_back(spec.name);
    }
    if (sorted(names) != sorted(wanted)) {
      throw UserError(ErrorCode::engine, path_ + " has the " + kind + "s " + list_text(sorted(names)) +
                                             " where manifest.json has " + list_text(sorted(wanted)) +
                                             "; export the bundle again.");
    }
    for (const TensorSpec& spec : specs) {
      const auto index = std::find(names.begin(), names.end(), spec.name) - names.begin();
      OrtTypeInfo* type = nullptr;
      check(api_, type_of(&session_, static_cast<std::size_t>(index), &type));
      const Owned<OrtTypeInfo> owned(type, api_.ReleaseTypeInfo);
      check_tensor(*type, spec, kind);
    }
  }

  void check_tensor(const OrtTypeInfo& type, const TensorSpec& spec, const char* kind) const {
    const OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api_, api_.CastTypeInfoToTensorInfo(&type, &info));
    ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    std::size_t rank = 0;
    if (info != nullptr) {
      check(api_, api_.GetTensorElementType(info, &element));
      check(api_, api_.GetDimensionsCount(info, &rank));
    }
    Shape shape(rank);
    if (info != nullptr) {
      check(api_, api_.GetDimensions(info, shape.data(), rank));
    }
    // -1 is a dynamic extent of the file.
    const bool fits = element == element_type(spec.dtype) &&
                      std::equal(shape.begin(), shape.end(), spec.shape.begin(), spec.shape.end(),
                                 [](std::int64_t extent, const Dim& dim) {
                                   return extent < 0 || !dim.symbol.empty() || extent == dim.extent;
                                 });
    if (!fits) {
      throw UserError(ErrorCode::engine, path_ + ": " + kind + " '" + spec.name + "' is " + type_text(element) +
                                             shape_text(shape) + " where manifest.json has " +
                                             std::string(dtype_name(spec.dtype)) + shape_text(spec.shape) +
                                             "; export the bundle again.");
    }
  }

  static std::string type_text(ONNXTensorElementDataType element) {
    // NOLINTNEXTLINE(readability-qualified-auto): an iterator, which is a pointer only in some libraries
    const auto known = std::find_if(element_types.begin(), element_types.end(),
                                    [element](const auto& type) { return type.second == element; });
    return known == element_types.end() ? "type " + std::to_string(element) : std::string(dtype_name(known->first));
  }

  const OrtApi& api_;
  const OrtSession& session_;
  const std::string& path_;
};

/// Graphs in ONNX Runtime sessions on the CPU.
class OnnxRuntimeBackend final : public Backend {
 public:
  explicit OnnxRuntimeBackend(const BackendOptions& options)
      : api_(find_api()), name_("ONNX Runtime " + std::string(OrtGetApiBase()->GetVersionString()) + " (cpu)"),
        reason_(options.reason.empty() ? "onnxruntime was requested" : options.reason), threads_(options.threads),
        environment_(nullptr, api_.ReleaseEnv), memory_(nullptr, api_.ReleaseMemoryInfo),
        board_([this](DType dtype, const Shape& shape) { return make_buffer(dtype, shape); }) {
    try {
      OrtEnv* environment = nullptr;
      disable_telemetry();
      check(api_, api_.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "rvos_edge", &environment));
      environment_.reset(environment);
      OrtMemoryInfo* memory = nullptr;
      check(api_, api_.CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
      memory_.reset(memory);
    } catch (const OrtProblem& problem) {
      throw UserError(ErrorCode::unsupported_backend,
                      "ONNX Runtime cannot be started (" + problem.detail + "); use another backend.");
    }
  }

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] const std::string& reason() const noexcept override { return reason_; }
  [[nodiscard]] Board& board() noexcept override { return board_; }

  std::unique_ptr<Graph> load(const std::string& /*name*/, const std::filesystem::path& path,
                              const GraphSpec& spec) override {
    auto session = open(path, spec);
    for (const auto* tensors : {&spec.inputs, &spec.outputs}) {
      for (const TensorSpec& tensor : *tensors) {
        board_.declare(tensor);
      }
    }
    return std::make_unique<OrtGraph>(std::move(session), board_);
  }

  std::unique_ptr<HostGraph> load_host(const std::filesystem::path& path, const GraphSpec& spec) override {
    return std::make_unique<OrtHostGraph>(api_, *memory_, open(path, spec));
  }

 private:
  [[nodiscard]] BufferPtr make_buffer(DType dtype, const Shape& shape) const {
    try {
      return std::make_shared<OrtBuffer>(api_, *memory_, dtype, shape);
    } catch (const OrtProblem& problem) {
      throw UserError(ErrorCode::engine, "ONNX Runtime takes no tensor of this size (" + problem.detail +
                                             "); use fewer queries or a smaller size.");
    }
  }

  [[nodiscard]] std::unique_ptr<Session> open(const std::filesystem::path& path, const GraphSpec& spec) const {
    const std::string name = path.string();
    Owned<OrtSession> session(nullptr, api_.ReleaseSession);
    try {
      OrtSessionOptions* made = nullptr;
      check(api_, api_.CreateSessionOptions(&made));
      const Owned<OrtSessionOptions> options(made, api_.ReleaseSessionOptions);
      check(api_, api_.SetSessionGraphOptimizationLevel(made, ORT_ENABLE_ALL));
      check(api_, api_.SetIntraOpNumThreads(made, threads_.value_or(0)));
      check(api_, api_.SetSessionLogSeverityLevel(made, ORT_LOGGING_LEVEL_ERROR));
      // Graphs run one after the other: the threads of one must not spin while the next works.
      check(api_, api_.AddSessionConfigEntry(made, "session.force_spinning_stop", "1"));
      // Widen 8-bit weights once at load, instead of in every run.
      check(api_, api_.AddSessionConfigEntry(made, "session.disable_quant_qdq", "1"));
      if (spec.precision == Arithmetic::int8) {
        // Kernels for symmetric activations take twice float32's time: compute in float32 instead.
        check(api_, api_.AddSessionConfigEntry(made, "session.enable_quant_qdq_cleanup", "1"));
      }
      OrtSession* opened = nullptr;
      check(api_, api_.CreateSession(environment_.get(), path.c_str(), made, &opened));
      session.reset(opened);
      const Inspector inspector(api_, *opened, name);
      inspector.check_inputs(spec.inputs);
      inspector.check_outputs(spec.outputs);
    } catch (const OrtProblem& problem) {
      throw UserError(ErrorCode::engine,
                      name + " cannot be loaded by ONNX Runtime (" + problem.detail + "); export the bundle again.");
    }
    return std::make_unique<Session>(api_, std::move(session), spec, name);
  }

  const OrtApi& api_;
  std::string name_;
  std::string reason_;
  std::optional<int> threads_;
  Owned<OrtEnv> environment_;
  Owned<OrtMemoryInfo> memory_;
  Board board_;
};

}  // namespace

std::unique_ptr<Backend> make_onnxruntime(const BackendOptions& options) {
  return std::make_unique<OnnxRuntimeBackend>(options);
}

}  // namespace rvos_edge
