#include "backends.hpp"

#include <algorithm>
#include <array>

#include "rvos_edge/error.hpp"

namespace rvos_edge {
namespace {

/// A backend: its device, the CMake option that builds it in, and the option's outcome.
struct Entry {
  const char* name;
  const char* device;
  const char* option;
  bool built;
};

#ifdef RVOS_EDGE_WITH_OPENVINO
constexpr bool with_openvino = true;
#else
constexpr bool with_openvino = false;
#endif
#ifdef RVOS_EDGE_WITH_ONNXRUNTIME
constexpr bool with_onnxruntime = true;
#else
constexpr bool with_onnxruntime = false;
#endif
// A library has one of the two, because their headers have the same names.
#if defined(RVOS_EDGE_WITH_TENSORRT) && defined(RVOS_EDGE_WITH_TENSORRT_RTX)
constexpr bool with_tensorrt = false;
constexpr bool with_tensorrt_rtx = true;
#elif defined(RVOS_EDGE_WITH_TENSORRT)
constexpr bool with_tensorrt = true;
constexpr bool with_tensorrt_rtx = false;
#else
constexpr bool with_tensorrt = false;
constexpr bool with_tensorrt_rtx = false;
#endif
// OpenVINO was measured only on CPUs of this family.
#if defined(__x86_64__) || defined(_M_X64)
constexpr bool prefers_openvino = true;
#else
constexpr bool prefers_openvino = false;
#endif

constexpr std::array<Entry, 5> entries = {{
    {"onnxruntime", "cpu", "RVOS_EDGE_ONNXRUNTIME", with_onnxruntime},
    {"openvino", "cpu", "RVOS_EDGE_OPENVINO", with_openvino},
    {"openvino-bf16", "cpu", "RVOS_EDGE_OPENVINO", with_openvino},
    {"tensorrt", "cuda", "RVOS_EDGE_TENSORRT", with_tensorrt},
    {"tensorrt-rtx", "cuda", "RVOS_EDGE_TENSORRT", with_tensorrt_rtx},
}};

[[nodiscard]] UserError unsupported(const std::string& sentence) {
  return {ErrorCode::unsupported_backend, sentence};
}

const Entry* find_entry(const std::string& name) noexcept {
  for (const Entry& entry : entries) {
    if (name == entry.name) {
      return &entry;
    }
  }
  return nullptr;
}

/// "cuda" of "cuda:1".
std::string kind_of(const std::string& device) {
  return device.substr(0, device.find(':'));
}

bool can_use(const Entry& entry, const std::string& device) {
  return device == "auto" || kind_of(device) == entry.device;
}

void check_device(const std::string& device) {
  const std::string kind = kind_of(device);
  const std::string index = device.substr(kind.size());
  const bool number =
      index.size() >= 2 && index.size() <= 4 && index.find_first_not_of("0123456789", 1) == std::string::npos;
  if (!(kind == "cuda" && (index.empty() || number)) && device != "auto" && device != "cpu") {
    throw unsupported("device '" + device + "' is unknown; use auto, cpu, cuda, or cuda:1 for the second GPU.");
  }
}

}  // namespace

std::vector<const Board::Slot*> declare_slots(Board& board, const GraphSpec& spec) {
  std::vector<const Board::Slot*> slots;
  for (const auto* tensors : {&spec.inputs, &spec.outputs}) {
    for (const TensorSpec& tensor : *tensors) {
      board.declare(tensor);
      slots.push_back(&board.slot(tensor.name));
    }
  }
  return slots;
}

bool fits_shape(const Shape& shape, const TensorSpec& spec, std::optional<std::int64_t> symbolic) {
  return std::equal(shape.begin(), shape.end(), spec.shape.begin(), spec.shape.end(),
                    [symbolic](std::int64_t extent, const Dim& dim) {
                      return extent < 0 || extent == (dim.symbol.empty() ? dim.extent : symbolic.value_or(extent));
                    });
}

HostTensor copy_output(const TensorSpec& spec, Shape shape, const void* data, const std::string& path) {
  if (!fits_shape(shape, spec, 1)) {
    throw UserError(ErrorCode::engine, path + " made '" + spec.name +
                                           "' of another shape than manifest.json says; export the bundle again.");
  }
  const auto* bytes = static_cast<const std::byte*>(data);
  const std::size_t size = count(shape) * dtype_bytes(spec.dtype);
  return {spec.name, spec.dtype, std::move(shape), {bytes, bytes + size}};
}

int gpu_index(const std::string& device) {
  check_device(device);
  const auto colon = device.find(':');
  return colon == std::string::npos ? 0 : std::stoi(device.substr(colon + 1));
}

std::vector<std::string> backend_names() {
  std::vector<std::string> names(entries.size());
  std::transform(entries.begin(), entries.end(), names.begin(), [](const Entry& entry) { return entry.name; });
  return names;
}

std::vector<std::string> available_backends(const Bundle& bundle, const std::string& device) {
  check_device(device);
  std::vector<std::string> names;
  for (const Entry& entry : entries) {
    // Without a graph that allows bfloat16, openvino-bf16 is openvino.
    const bool another = std::string_view(entry.name) != "openvino-bf16" || bundle.manifest().allows_bfloat16();
    if (entry.built && another && can_use(entry, device)) {
      names.emplace_back(entry.name);
    }
  }
  return names;
}

std::unique_ptr<Backend> open_backend(const std::string& name, const Bundle& bundle, const BackendOptions& options) {
  const Entry* entry = find_entry(name);
  if (entry == nullptr) {
    std::string known;
    for (const Entry& other : entries) {
      known += (known.empty() ? "" : " or ") + std::string(other.name);
    }
    throw unsupported("backend '" + name + "' is unknown; use " + known + ".");
  }
  if (!can_use(*entry, options.device)) {
    throw unsupported("backend '" + name + "' cannot use device '" + options.device + "'; use device '" +
                      entry->device + "', or another backend.");
  }
  if (options.threads && *options.threads < 1) {
    throw UserError(ErrorCode::invalid_argument, "threads must be at least 1, not " + std::to_string(*options.threads) +
                                                     "; leave it out to use every core.");
  }
  if (!entry->built) {
    throw unsupported("backend '" + name + "' is not built into this library; configure it with -D" + entry->option +
                      "=ON.");
  }
  static_cast<void>(bundle);
#ifdef RVOS_EDGE_WITH_TENSORRT
  if (name == "tensorrt" || name == "tensorrt-rtx") {
    return make_tensorrt(bundle, options);
  }
#endif
#ifdef RVOS_EDGE_WITH_ONNXRUNTIME
  if (name == "onnxruntime") {
    return make_onnxruntime(options);
  }
#endif
#ifdef RVOS_EDGE_WITH_OPENVINO
  if (name == "openvino" || name == "openvino-bf16") {
    return make_openvino(options, name == "openvino-bf16");
  }
#endif
  throw unsupported("backend '" + name + "' cannot be started.");
}

std::vector<Candidate> ranked_backends(const Bundle& bundle, const std::string& device) {
  std::vector<Candidate> ranked;
  const auto available = available_backends(bundle, device);
  const auto has = [&available](const char* name) {
    return std::find(available.begin(), available.end(), name) != available.end();
  };
  std::string why = device == "cpu" ? "the CPU was asked for" : "no GPU backend is built in";
#ifdef RVOS_EDGE_WITH_TENSORRT
  if (device != "cpu" && has_gpu(gpu_index(device))) {
    ranked.push_back({with_tensorrt ? "tensorrt" : "tensorrt-rtx", "it is the fastest on a GPU"});
  }
  why = device == "cpu" ? why : "TensorRT finds no GPU";
#endif
#ifdef RVOS_EDGE_WITH_OPENVINO
  if (prefers_openvino && has("openvino-bf16") && bfloat16_pays()) {
    ranked.push_back({"openvino-bf16", why + "; on this CPU OpenVINO in bfloat16 is the fastest"});
  }
#endif
  if (prefers_openvino && has("openvino")) {
    ranked.push_back({"openvino", why + "; on a CPU of this kind OpenVINO is the fastest"});
  }
  if (has("onnxruntime")) {
    ranked.push_back({"onnxruntime", why});
  }
  if (!prefers_openvino && has("openvino")) {
    ranked.push_back({"openvino", why + "; OpenVINO was not measured on this kind of CPU"});
  }
  if (ranked.empty()) {
    throw unsupported("no backend of this library can use device '" + device +
                      "'; build one in, such as OpenVINO with -DRVOS_EDGE_OPENVINO=ON.");
  }
  return ranked;
}

}  // namespace rvos_edge
