#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <openvino/openvino.hpp>
#include <openvino/opsets/opset13.hpp>
#include <random>
#include <set>

#include "backends.hpp"
#include "openvino_cache.hpp"
#include "rvos_edge/error.hpp"
#include "words.hpp"

namespace rvos_edge {
namespace {

/// Restores the thread's signal stack at its end.
///
/// OpenVINO's CPU plugin installs a signal stack in the thread that loads it, and restores the previous one when it is
/// unloaded. If two plugins are unloaded in the order of loading, the second restores the first one's stack, which is
/// freed, and the next signal crashes. A plugin that does not find its own stack changes nothing.
class KeepSignalStack {
 public:
#ifdef __unix__
  KeepSignalStack() : known_(sigaltstack(nullptr, &stack_) == 0) {}
  ~KeepSignalStack() {
    if (known_) {
      sigaltstack(&stack_, nullptr);
    }
  }
  KeepSignalStack(const KeepSignalStack&) = delete;
  KeepSignalStack& operator=(const KeepSignalStack&) = delete;

 private:
  stack_t stack_{};
  bool known_;
#endif
};

ov::element::Type element_type(DType dtype) {
  switch (dtype) {
  case DType::uint8:
    return ov::element::u8;
  case DType::int64:
    return ov::element::i64;
  case DType::float16:
    return ov::element::f16;
  case DType::float32:
    break;
  }
  return ov::element::f32;
}

ov::Shape to_shape(const Shape& shape) {
  return {shape.begin(), shape.end()};
}

/// Host memory with an OpenVINO tensor for it, so that binding allocates nothing.
class OpenVinoBuffer final : public HostBuffer {
 public:
  OpenVinoBuffer(DType dtype, const Shape& shape)
      : HostBuffer(dtype, shape), tensor_(element_type(dtype), to_shape(shape), address()) {}
  [[nodiscard]] const ov::Tensor& tensor() const noexcept { return tensor_; }

 private:
  ov::Tensor tensor_;
};

using Port = ov::Output<const ov::Node>;

/// The port of a tensor.
/// @throws UserError  The file has none, or one of another dtype or shape than the manifest.
Port find_port(const std::vector<Port>& ports, const TensorSpec& spec, const std::string& path, const char* kind) {
  const auto found = std::find_if(ports.begin(), ports.end(),
                                  [&spec](const Port& port) { return port.get_names().count(spec.name) != 0; });
  if (found == ports.end()) {
    throw UserError(ErrorCode::engine,
                    path + " has no tensor '" + spec.name + "' as manifest.json says; export the bundle again.");
  }
  ov::PartialShape wanted;
  for (const Dim& dim : spec.shape) {
    wanted.push_back(dim.symbol.empty() ? ov::Dimension(dim.extent) : ov::Dimension::dynamic());
  }
  const auto& actual = found->get_partial_shape();
  if (found->get_element_type() != element_type(spec.dtype) || !actual.compatible(wanted)) {
    throw UserError(ErrorCode::engine, path + ": " + kind + " '" + spec.name + "' is " +
                                           found->get_element_type().to_string() + actual.to_string() +
                                           " where manifest.json has " + std::string(dtype_name(spec.dtype)) +
                                           wanted.to_string() + "; export the bundle again.");
  }
  return *found;
}

std::vector<Port> find_ports(const ov::CompiledModel& model, const GraphSpec& spec, const std::string& path) {
  std::vector<Port> ports;
  for (const TensorSpec& tensor : spec.inputs) {
    ports.push_back(find_port(model.inputs(), tensor, path, "input"));
  }
  for (const TensorSpec& tensor : spec.outputs) {
    ports.push_back(find_port(model.outputs(), tensor, path, "output"));
  }
  if (model.inputs().size() != spec.inputs.size()) {
    throw UserError(ErrorCode::engine, path + " has " + std::to_string(model.inputs().size()) +
                                           " inputs where manifest.json has " + std::to_string(spec.inputs.size()) +
                                           "; export the bundle again.");
  }
  return ports;
}

[[nodiscard]] UserError run_error(const std::string& path, const std::exception& error) {
  return {ErrorCode::engine,
          path + " cannot be run by OpenVINO (" + one_line(error.what(), 200) + "); export the bundle again."};
}

/// A compiled graph bound to slots; a slot is bound again only when its buffer has changed.
class OpenVinoGraph final : public Graph {
 public:
  OpenVinoGraph(ov::CompiledModel model, const GraphSpec& spec, std::vector<const Board::Slot*> slots, std::string path)
      : path_(std::move(path)), request_(model.create_infer_request()), ports_(find_ports(model, spec, path_)),
        slots_(std::move(slots)), bound_(slots_.size()) {}

  void run() override {
    try {
      for (std::size_t i = 0; i < slots_.size(); ++i) {
        const BufferPtr& buffer = slots_[i]->buffer;
        if (bound_[i] != buffer) {
          request_.set_tensor(ports_[i], static_cast<const OpenVinoBuffer&>(*buffer).tensor());
          bound_[i] = buffer;
        }
      }
      request_.infer();
    } catch (const ov::Exception& error) {
      throw run_error(path_, error);
    }
  }

 private:
  std::string path_;
  ov::InferRequest request_;
  std::vector<Port> ports_;
  std::vector<const Board::Slot*> slots_;
  /// Held so that a buffer's address is not reused for another.
  std::vector<BufferPtr> bound_;
};

/// A compiled graph that runs on host arrays.
class OpenVinoHostGraph final : public HostGraph {
 public:
  OpenVinoHostGraph(ov::CompiledModel model, const GraphSpec& spec, std::string path)
      : path_(std::move(path)), request_(model.create_infer_request()), outputs_(spec.outputs),
        ports_(find_ports(model, spec, path_)) {}

  std::vector<HostTensor> run(const std::vector<HostTensor>& inputs) override {
    try {
      for (const HostTensor& input : inputs) {
        ov::Tensor tensor(element_type(input.dtype), to_shape(input.shape));
        std::memcpy(tensor.data(), input.data.data(), input.data.size());
        request_.set_tensor(input.name, tensor);
      }
      request_.infer();
      std::vector<HostTensor> results;
      for (std::size_t i = 0; i < outputs_.size(); ++i) {
        const ov::Tensor tensor = request_.get_tensor(ports_[ports_.size() - outputs_.size() + i]);
        const ov::Shape& shape = tensor.get_shape();
        results.push_back(copy_output(outputs_[i], {shape.begin(), shape.end()}, tensor.data(), path_));
      }
      return results;
    } catch (const ov::Exception& error) {
      throw run_error(path_, error);
    }
  }

 private:
  std::string path_;
  ov::InferRequest request_;
  std::vector<TensorSpec> outputs_;
  std::vector<Port> ports_;
};

ov::AnyMap options_for(Arithmetic precision) {
  // Of an int8 graph it is the type of the layers that are not quantised.
  const ov::element::Type types[] = {ov::element::f32, ov::element::f16, ov::element::bf16, ov::element::bf16};
  // Without the hint OpenVINO uses bfloat16 on CPUs that have it, which makes the flow wrong.
  return {ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
          ov::hint::inference_precision(types[static_cast<int>(precision)]),
          // Otherwise the activations at 8-bit weights are rounded to 8 bits too, in the text graph.
          ov::hint::dynamic_quantization_group_size(0)};
}

/// Graphs compiled by OpenVINO for the CPU.
class OpenVinoBackend final : public Backend {
 public:
  OpenVinoBackend(const BackendOptions& options, bool bfloat16)
      : reason_(options.reason.empty() ? "OpenVINO was requested" : options.reason), threads_(options.threads),
        bfloat16_(bfloat16), board_([](DType dtype, const Shape& shape) -> BufferPtr {
          return std::make_shared<OpenVinoBuffer>(dtype, shape);
        }) {
    const std::string version = ov::get_openvino_version().buildNumber;
    name_ = "OpenVINO " + version.substr(0, version.find('-')) + " (cpu" + (bfloat16 ? ", bfloat16" : "") + ")";
  }

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] const std::string& reason() const noexcept override { return reason_; }
  [[nodiscard]] Board& board() noexcept override { return board_; }

  std::unique_ptr<Graph> load(const std::string& /*name*/, const std::filesystem::path& path,
                              const GraphSpec& spec) override {
    ov::CompiledModel model = compile(path, spec);
    return std::make_unique<OpenVinoGraph>(std::move(model), spec, declare_slots(board_, spec), path.string());
  }

  std::unique_ptr<HostGraph> load_host(const std::filesystem::path& path, const GraphSpec& spec) override {
    return std::make_unique<OpenVinoHostGraph>(compile(path, spec), spec, path.string());
  }

 private:
  ov::CompiledModel compile(const std::filesystem::path& path, const GraphSpec& spec) {
    const bool narrow = spec.precision == Arithmetic::bfloat16 || spec.precision == Arithmetic::int8;
    const bool widen = narrow && !bfloat16_;
    ov::AnyMap options = options_for(widen ? Arithmetic::float32 : spec.precision);
    if (threads_) {
      options.insert(ov::inference_num_threads(*threads_));
      // Fewer threads than cores leave room for others, which OpenVINO would tie to the same cores.
      options.insert(ov::hint::enable_cpu_pinning(false));
    }
    const KeepSignalStack kept;
    try {
      return compile_once(core_, path, spec.sha256, options);
    } catch (const std::runtime_error& error) {
      throw UserError(ErrorCode::engine, path.string() + " cannot be loaded by OpenVINO (" +
                                             one_line(error.what(), 200) + "); export the bundle again.");
    }
  }

  std::string name_;
  std::string reason_;
  std::optional<int> threads_;
  bool bfloat16_;
  ov::Core core_;
  Board board_;
};

/// Shortest time of a few runs of a convolution, in seconds.
double convolution_time(ov::Core& core, Arithmetic precision) {
  using Clock = std::chrono::steady_clock;
  std::mt19937 random(0);  // NOLINT: a fixed seed is intended
  std::normal_distribution<float> normal;
  const auto filled = [&](const ov::Shape& shape) {
    ov::Tensor tensor(ov::element::f32, shape);
    std::generate_n(tensor.data<float>(), tensor.get_size(), [&] { return normal(random); });
    return tensor;
  };
  const ov::Tensor image = filled({1, 128, 32, 32});
  const auto source = std::make_shared<ov::opset13::Parameter>(ov::element::f32, image.get_shape());
  const auto kernel = std::make_shared<ov::opset13::Constant>(filled({128, 128, 3, 3}));
  const auto result = std::make_shared<ov::opset13::Convolution>(
      source, kernel, ov::Strides{1, 1}, ov::CoordinateDiff{1, 1}, ov::CoordinateDiff{1, 1}, ov::Strides{1, 1});
  const auto model = std::make_shared<ov::Model>(ov::OutputVector{result}, ov::ParameterVector{source});
  ov::InferRequest request = core.compile_model(model, "CPU", options_for(precision)).create_infer_request();
  request.set_input_tensor(image);
  auto fastest = Clock::duration::max();
  for (int run = 0; run < 8; ++run) {
    const auto start = Clock::now();
    request.infer();
    fastest = std::min(fastest, Clock::now() - start);
  }
  return std::chrono::duration<double>(fastest).count();
}

}  // namespace

std::unique_ptr<Backend> make_openvino(const BackendOptions& options, bool bfloat16) {
  return std::make_unique<OpenVinoBackend>(options, bfloat16);
}

bool bfloat16_pays() {
  const KeepSignalStack kept;
  ov::Core core;
  const auto capabilities = core.get_property("CPU", ov::device::capabilities);
  if (std::find(capabilities.begin(), capabilities.end(), ov::device::capability::BF16) == capabilities.end()) {
    return false;
  }
  // Measured once per CPU and version of OpenVINO, or the load of the machine would change the answer.
  const std::string key = core.get_property("CPU", ov::device::full_name) + " OpenVINO " +
                          std::string(ov::get_openvino_version().buildNumber);
  const std::filesystem::path folder = memory_folder();
  const std::filesystem::path file = folder.empty() ? folder : folder / "bfloat16";
  const std::string known = read_kept(file);
  if (known == key + " yes\n" || known == key + " no\n") {
    return known == key + " yes\n";
  }
  // The instructions alone are no proof: on a Xeon with AVX512-BF16 but without AMX bfloat16 is 1.5 times slower.
  const bool pays = convolution_time(core, Arithmetic::bfloat16) < convolution_time(core, Arithmetic::float32);
  if (!file.empty()) {
    keep(file, key + (pays ? " yes\n" : " no\n"));
  }
  return pays;
}

}  // namespace rvos_edge
