// ONNX Runtime on the CPU, through its header-only C++ interface.

// The table of functions is that of ONNX Runtime 1.18, whatever the headers are.
#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstdlib>
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

/// The library's version; its functions can be called from then on.
/// @throws UserError  The library is older than `api_version`.
std::string start_library() {
  const OrtApiBase* base = OrtGetApiBase();
  const OrtApi* api = base->GetApi(api_version);
  if (api == nullptr) {
    throw UserError(ErrorCode::unsupported_backend, "ONNX Runtime " + std::string(base->GetVersionString()) +
                                                        " is too old; install 1.18 or newer, or use another backend.");
  }
  Ort::InitApi(api);
  return base->GetVersionString();
}

std::string detail(const Ort::Exception& problem) {
  return one_line(problem.what(), 200);
}

UserError not_run(const std::string& path, const Ort::Exception& problem) {
  return {ErrorCode::engine,
          path + " cannot be run by ONNX Runtime (" + detail(problem) + "); export the bundle again."};
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

Ort::Value make_value(const OrtMemoryInfo* where, DType dtype, const Shape& shape, void* data) {
  return Ort::Value::CreateTensor(where, data, count(shape) * dtype_bytes(dtype), shape.data(), shape.size(),
                                  element_type(dtype));
}

/// Host memory with an ONNX Runtime value for it, so that a run allocates nothing.
class OrtBuffer final : public HostBuffer {
 public:
  OrtBuffer(const OrtMemoryInfo* where, DType dtype, const Shape& shape)
      : HostBuffer(dtype, shape), value_(make_value(where, dtype, shape, address())) {}
  [[nodiscard]] OrtValue* value() noexcept { return value_; }

 private:
  Ort::Value value_;
};

/// A session with the names of its tensors in the order of the manifest.
struct Session {
  Session(Ort::Session opened, const GraphSpec& spec, std::string file)
      : session(std::move(opened)), path(std::move(file)), inputs(spec.inputs), outputs(spec.outputs) {
    // The names live in this object, which is neither copied nor moved.
    for (const TensorSpec& tensor : inputs) {
      input_names.push_back(tensor.name.c_str());
    }
    for (const TensorSpec& tensor : outputs) {
      output_names.push_back(tensor.name.c_str());
    }
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() = default;

  Ort::Session session;
  std::string path;
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  std::vector<const char*> input_names;
  std::vector<const char*> output_names;
};

/// A session whose inputs and outputs are slots; a run uses the buffers that they hold now.
class OrtGraph final : public Graph {
 public:
  OrtGraph(std::unique_ptr<Session> session, std::vector<const Board::Slot*> slots)
      : session_(std::move(session)), slots_(std::move(slots)), values_(slots_.size()) {}

  void run() override {
    std::transform(slots_.begin(), slots_.end(), values_.begin(),
                   [](const Board::Slot* slot) { return static_cast<OrtBuffer&>(*slot->buffer).value(); });
    const std::size_t inputs = session_->inputs.size();
    try {
      Ort::ThrowOnError(Ort::GetApi().Run(session_->session, nullptr, session_->input_names.data(), values_.data(),
                                          inputs, session_->output_names.data(), values_.size() - inputs,
                                          values_.data() + inputs));
    } catch (const Ort::Exception& problem) {
      throw not_run(session_->path, problem);
    }
  }

 private:
  std::unique_ptr<Session> session_;
  std::vector<const Board::Slot*> slots_;
  std::vector<OrtValue*> values_;
};

/// A session that runs on host arrays.
class OrtHostGraph final : public HostGraph {
 public:
  OrtHostGraph(const OrtMemoryInfo* where, std::unique_ptr<Session> session)
      : where_(where), session_(std::move(session)) {}

  std::vector<HostTensor> run(const std::vector<HostTensor>& inputs) override {
    try {
      std::vector<Ort::Value> values;
      for (const TensorSpec& spec : session_->inputs) {
        const auto given = std::find_if(inputs.begin(), inputs.end(),
                                        [&spec](const HostTensor& tensor) { return tensor.name == spec.name; });
        if (given == inputs.end()) {
          throw std::invalid_argument("input '" + spec.name + "' is not given");
        }
        // ONNX Runtime only reads inputs.
        void* data = const_cast<std::byte*>(given->data.data());
        values.push_back(make_value(where_, given->dtype, given->shape, data));
      }
      std::vector<Ort::Value> made =
          session_->session.Run(Ort::RunOptions{nullptr}, session_->input_names.data(), values.data(), values.size(),
                                session_->output_names.data(), session_->output_names.size());
      std::vector<HostTensor> results;
      for (std::size_t i = 0; i < made.size(); ++i) {
        results.push_back(copy_output(session_->outputs[i], made[i].GetTensorTypeAndShapeInfo().GetShape(),
                                      made[i].GetTensorRawData(), session_->path));
      }
      return results;
    } catch (const Ort::Exception& problem) {
      throw not_run(session_->path, problem);
    }
  }

 private:
  const OrtMemoryInfo* where_;
  std::unique_ptr<Session> session_;
};

std::string type_text(ONNXTensorElementDataType element) {
  // NOLINTNEXTLINE(readability-qualified-auto): an iterator, which is a pointer only in some libraries
  const auto known = std::find_if(element_types.begin(), element_types.end(),
                                  [element](const auto& type) { return type.second == element; });
  return known == element_types.end() ? "type " + std::to_string(element) : std::string(dtype_name(known->first));
}

void check_tensor(const Ort::TypeInfo& type, const TensorSpec& spec, const std::string& path, const char* kind) {
  ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  Shape shape;
  if (type.GetONNXType() == ONNX_TYPE_TENSOR) {
    const auto info = type.GetTensorTypeAndShapeInfo();
    element = info.GetElementType();
    shape = info.GetShape();
  }
  // -1 is a dynamic extent of the file.
  if (element != element_type(spec.dtype) || !fits_shape(shape, spec)) {
    throw UserError(ErrorCode::engine, path + ": " + kind + " '" + spec.name + "' is " + type_text(element) +
                                           shape_text(shape) + " where manifest.json has " +
                                           std::string(dtype_name(spec.dtype)) + shape_text(spec.shape) +
                                           "; export the bundle again.");
  }
}

/// Verify that a session has the inputs, or the outputs, of the manifest: `names` are its own in their order.
template <class TypeOf>
void check_tensors(const std::vector<std::string>& names, const std::vector<TensorSpec>& specs, const std::string& path,
                   const char* kind, TypeOf type_of) {
  std::vector<std::string> wanted;
  wanted.reserve(specs.size());
  for (const TensorSpec& spec : specs) {
    wanted.push_back(spec.name);
  }
  if (sorted(names) != sorted(wanted)) {
    throw UserError(ErrorCode::engine, path + " has the " + kind + "s " + list_text(sorted(names)) +
                                           " where manifest.json has " + list_text(sorted(wanted)) +
                                           "; export the bundle again.");
  }
  for (const TensorSpec& spec : specs) {
    const auto index = std::find(names.begin(), names.end(), spec.name) - names.begin();
    check_tensor(type_of(static_cast<std::size_t>(index)), spec, path, kind);
  }
}

void check_session(const Ort::Session& session, const GraphSpec& spec, const std::string& path) {
  const Ort::AllocatorWithDefaultOptions allocator;
  std::vector<std::string> inputs;
  for (std::size_t i = 0; i < session.GetInputCount(); ++i) {
    inputs.emplace_back(session.GetInputNameAllocated(i, allocator).get());
  }
  std::vector<std::string> outputs;
  for (std::size_t i = 0; i < session.GetOutputCount(); ++i) {
    outputs.emplace_back(session.GetOutputNameAllocated(i, allocator).get());
  }
  check_tensors(inputs, spec.inputs, path, "input", [&session](std::size_t i) { return session.GetInputTypeInfo(i); });
  check_tensors(outputs, spec.outputs, path, "output",
                [&session](std::size_t i) { return session.GetOutputTypeInfo(i); });
}

/// Graphs in ONNX Runtime sessions on the CPU.
class OnnxRuntimeBackend final : public Backend {
 public:
  explicit OnnxRuntimeBackend(const BackendOptions& options)
      : name_("ONNX Runtime " + start_library() + " (cpu)"),
        reason_(options.reason.empty() ? "onnxruntime was requested" : options.reason), threads_(options.threads),
        board_([this](DType dtype, const Shape& shape) { return make_buffer(dtype, shape); }) {
    try {
      disable_telemetry();
      environment_ = Ort::Env(ORT_LOGGING_LEVEL_ERROR, "rvos_edge");
      memory_ = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
    } catch (const Ort::Exception& problem) {
      throw UserError(ErrorCode::unsupported_backend,
                      "ONNX Runtime cannot be started (" + detail(problem) + "); use another backend.");
    }
  }

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] const std::string& reason() const noexcept override { return reason_; }
  [[nodiscard]] Board& board() noexcept override { return board_; }

  std::unique_ptr<Graph> load(const std::string& /*name*/, const std::filesystem::path& path,
                              const GraphSpec& spec) override {
    auto session = open(path, spec);
    return std::make_unique<OrtGraph>(std::move(session), declare_slots(board_, spec));
  }

  std::unique_ptr<HostGraph> load_host(const std::filesystem::path& path, const GraphSpec& spec) override {
    return std::make_unique<OrtHostGraph>(memory_, open(path, spec));
  }

 private:
  [[nodiscard]] BufferPtr make_buffer(DType dtype, const Shape& shape) const {
    try {
      return std::make_shared<OrtBuffer>(memory_, dtype, shape);
    } catch (const Ort::Exception& problem) {
      throw UserError(ErrorCode::engine, "ONNX Runtime takes no tensor of this size (" + detail(problem) +
                                             "); use fewer queries or a smaller size.");
    }
  }

  [[nodiscard]] std::unique_ptr<Session> open(const std::filesystem::path& path, const GraphSpec& spec) const {
    const std::string name = path.string();
    try {
      Ort::SessionOptions options;
      options.SetGraphOptimizationLevel(ORT_ENABLE_ALL);
      options.SetIntraOpNumThreads(threads_.value_or(0));
      options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_ERROR);
      // Graphs run one after the other: the threads of one must not spin while the next works.
      options.AddConfigEntry("session.force_spinning_stop", "1");
      // Widen 8-bit weights once at load, instead of in every run.
      options.AddConfigEntry("session.disable_quant_qdq", "1");
      if (spec.precision == Arithmetic::int8) {
        // Kernels for symmetric activations take twice float32's time: compute in float32 instead.
        options.AddConfigEntry("session.enable_quant_qdq_cleanup", "1");
      }
      auto session = std::make_unique<Session>(Ort::Session(environment_, path.c_str(), options), spec, name);
      check_session(session->session, spec, name);
      return session;
    } catch (const Ort::Exception& problem) {
      throw UserError(ErrorCode::engine,
                      name + " cannot be loaded by ONNX Runtime (" + detail(problem) + "); export the bundle again.");
    }
  }

  std::string name_;
  std::string reason_;
  std::optional<int> threads_;
  Ort::Env environment_{nullptr};
  Ort::MemoryInfo memory_{nullptr};
  Board board_;
};

}  // namespace

std::unique_ptr<Backend> make_onnxruntime(const BackendOptions& options) {
  return std::make_unique<OnnxRuntimeBackend>(options);
}

}  // namespace rvos_edge
