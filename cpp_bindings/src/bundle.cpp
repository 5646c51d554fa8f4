#include "rvos_edge/bundle.hpp"

#include <algorithm>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string_view>

#include "manifest.hpp"
#include "names.hpp"
#include "rvos_edge/error.hpp"
#include "sha256.hpp"
#include "unicode.hpp"
#include "words.hpp"

namespace rvos_edge {
namespace {

namespace fs = std::filesystem;

[[nodiscard]] UserError bad(const std::string& sentence) {
  return {ErrorCode::bad_bundle, sentence};
}

std::string describe(const TensorSpec& spec) {
  return std::string(dtype_name(spec.dtype)) + shape_text(spec.shape);
}

bool differ(const TensorSpec& a, const TensorSpec& b) {
  return a.dtype != b.dtype || a.shape != b.shape;
}

/// Engines take names in UTF-8 that end with NUL.
void check_name(const fs::path& path) {
  if (decode_utf8(path.string()).find_first_of(std::u32string_view(U"\uFFFD\0", 2)) != std::u32string::npos) {
    throw UserError(ErrorCode::invalid_argument, path_text(path) + " is not a name in UTF-8; rename the folder.");
  }
}

/// True if a path lies in a folder once links and ".." are followed. A link that leads to itself lies nowhere.
bool is_inside(const fs::path& path, const fs::path& folder) {
  std::error_code failed;
  const fs::path inner = fs::weakly_canonical(path, failed);
  const fs::path outer = failed ? fs::path() : fs::weakly_canonical(folder, failed);
  return !failed && std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

void check_file(const fs::path& root, const std::string& name, const std::string& sha256, const std::string& what) {
  const fs::path path = root / name;
  std::error_code ignored;
  // A NUL would end the name for the system, but not for the comparison.
  if (name.find('\0') != std::string::npos || !is_inside(path, root)) {
    throw bad(path_text(root) + ": " + what + " names a file outside the bundle; do not use this bundle.");
  }
  if (!fs::is_regular_file(path, ignored)) {
    throw UserError(ErrorCode::not_found, path_text(root) + ": " + what + " (" + name +
                                              ") is missing; copy the whole bundle or export it again.");
  }
  if (sha256_of_file(path) != sha256) {
    throw bad(path_text(path) + " does not match its sha256 in manifest.json: it is damaged; copy or export it again.");
  }
}

/// Remove a varint of one byte, which may be padded, from the end of `bytes`; false if another one is there.
bool take_back(std::string_view& bytes, unsigned value) {
  std::size_t end = bytes.size();
  if (end != 0 && bytes[end - 1] == '\0') {
    end = bytes.find_last_not_of('\x80', end - 2) + 1;
    value |= 0x80U;
  }
  if (end == 0 || static_cast<unsigned char>(bytes[end - 1]) != value) {
    return false;
  }
  bytes = bytes.substr(0, end - 1);
  return true;
}

/// True if weights of an ONNX file lie in another one: an entry with the key "location" (string, field 1) names it.
bool has_external_data(std::string_view bytes) {
  constexpr std::string_view key = "location";
  for (std::size_t at = 0; (at = bytes.find(key, at)) != std::string_view::npos; ++at) {
    std::string_view before = bytes.substr(0, at);
    if (take_back(before, key.size()) && take_back(before, 1U << 3U | 2U)) {
      return true;
    }
  }
  return false;
}

/// Refuse what an engine would load beyond the file that was hashed: weights in other files, and other formats, which
/// engines recognise by their content. An ONNX file begins with the field `ir_version`.
void check_graph_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes(fs::file_size(path), '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file || (!bytes.empty() && bytes.front() != 1 << 3)) {
    throw bad(path_text(path) + " is not an ONNX file; export the bundle again.");
  }
  if (has_external_data(bytes)) {
    throw bad(path_text(path) + " keeps weights in another file, which has no hash; export the bundle again.");
  }
}

/// The manifest with the graphs of another input size.
Manifest at_size(Manifest manifest, Size size, const fs::path& root) {
  if (size == manifest.size) {
    return manifest;
  }
  const std::string key = format_size(size);
  const auto found = std::find_if(manifest.sizes.begin(), manifest.sizes.end(),
                                  [&key](const auto& entry) { return entry.first == key; });
  if (found == manifest.sizes.end()) {
    std::string known = format_size(manifest.size);
    for (const auto& [other, graphs] : manifest.sizes) {
      known += ", " + other;
    }
    throw UserError(ErrorCode::not_found,
                    path_text(root) + " has no graphs for " + key + "; it was exported for " + known + ".");
  }
  const GraphSpec* text = manifest.find(text_graph);
  if (text == nullptr) {
    throw bad(path_text(root) + ": graph 'text' is missing from manifest.json; export the bundle again.");
  }
  Graphs graphs = {{text_graph, *text}};
  for (const auto& [name, spec] : found->second) {
    if (name == text_graph) {
      graphs.front().second = spec;
    } else {
      graphs.emplace_back(name, spec);
    }
  }
  manifest.size = size;
  manifest.graphs = std::move(graphs);
  return manifest;
}

void check_graphs(const Manifest& manifest, const std::string& where) {
  std::vector<std::string> required = {text_graph};
  for (const std::string& name : manifest.vision_graphs()) {
    required.push_back(name);
  }
  if (manifest.flow) {
    required.insert(required.end(), std::begin(flow_graphs), std::end(flow_graphs));
  }
  required.emplace_back(gating_graph);
  for (const std::string& name : required) {
    if (manifest.find(name) == nullptr) {
      throw bad(where + ": graph '" + name + "' is missing from manifest.json; export the bundle again.");
    }
  }
}

using Fed = std::map<std::string, TensorSpec, std::less<>>;

void check_states(const Manifest& manifest, const std::string& where, Fed& fed) {
  for (const auto& [state, source] : manifest.states) {
    const auto producer = fed.find(source);
    if (producer == fed.end()) {
      throw bad(where + ": state '" + state + "' takes '" + source + "', which no graph produces; export it again.");
    }
    TensorSpec wanted = producer->second;
    wanted.name = state;
    // A graph may also write a state directly (hidden comes from flow_context, then from flow_step).
    if (differ(fed.emplace(state, wanted).first->second, wanted)) {
      throw bad(where + ": state '" + state + "' cannot swap with '" + source + "', they differ; export it again.");
    }
  }
}

void check_inputs(const GraphSpec& graph, const std::string& name, const std::string& where, const Fed& fed) {
  for (const TensorSpec& spec : graph.inputs) {
    if (name == text_graph && (spec.name == ids_input || spec.name == mask_input)) {
      continue;
    }
    const auto source = fed.find(spec.name);
    if (source == fed.end()) {
      throw bad(where + ": input '" + spec.name + "' of graph '" + name + "' is fed by nothing; export it again.");
    }
    if (differ(source->second, spec)) {
      throw bad(where + ": input '" + spec.name + "' of graph '" + name + "' is " + describe(spec) + " but is fed " +
                describe(source->second) + "; export it again.");
    }
  }
}

}  // namespace

std::string_view dtype_name(DType dtype) noexcept {
  constexpr std::string_view names[] = {"uint8", "int64", "float16", "float32"};
  return names[static_cast<int>(dtype)];
}

std::size_t dtype_bytes(DType dtype) noexcept {
  constexpr std::size_t bytes[] = {1, 8, 2, 4};
  return bytes[static_cast<int>(dtype)];
}

const GraphSpec* Manifest::find(std::string_view graph) const noexcept {
  const auto found =
      std::find_if(graphs.begin(), graphs.end(), [graph](const auto& entry) { return entry.first == graph; });
  return found == graphs.end() ? nullptr : &found->second;
}

const GraphSpec& Manifest::graph(std::string_view wanted) const {
  if (const GraphSpec* found = find(wanted)) {
    return *found;
  }
  throw std::out_of_range("there is no graph '" + std::string(wanted) + "'");
}

std::vector<std::string> Manifest::vision_graphs() const {
  if (find(fused_vision_graph) != nullptr) {
    return {fused_vision_graph};
  }
  return {std::begin(rvos_edge::vision_graphs), std::end(rvos_edge::vision_graphs)};
}

std::vector<std::string> Manifest::answer_graphs() const {
  std::vector<std::string> names = {gating_graph};
  if (find(boundary_graph) != nullptr) {
    names.emplace_back(boundary_graph);
  }
  return names;
}

bool Manifest::has_presence() const noexcept {
  const GraphSpec* gating = find(gating_graph);
  return gating != nullptr && std::any_of(gating->outputs.begin(), gating->outputs.end(),
                                          [](const TensorSpec& spec) { return spec.name == presence_output; });
}

bool Manifest::allows_bfloat16() const noexcept {
  return std::any_of(graphs.begin(), graphs.end(), [](const auto& entry) {
    return entry.second.precision == Arithmetic::bfloat16 || entry.second.precision == Arithmetic::int8;
  });
}

std::string format_size(Size size) {
  return std::to_string(size.height) + "x" + std::to_string(size.width);
}

void check_wiring(const Manifest& manifest, const fs::path& root) {
  const std::string where = path_text(root);
  check_graphs(manifest, where);
  Fed fed;
  fed[frame_input] = {frame_input, DType::uint8, {{manifest.size.height, {}}, {manifest.size.width, {}}, {3, {}}}};
  for (const auto& [name, graph] : manifest.graphs) {
    for (const TensorSpec& spec : graph.outputs) {
      fed[spec.name] = spec;
    }
  }
  check_states(manifest, where, fed);
  for (const char* name : {margin_output, flow_output, flow_coords}) {
    if ((manifest.flow || name == margin_output) && fed.count(name) == 0) {
      throw bad(where + ": no graph produces '" + name + "'; export the bundle again.");
    }
  }
  for (const auto& [name, graph] : manifest.graphs) {
    // Its target and weight are no tensors of the bundle; `Teacher` checks what it needs.
    if (name != teach_graph) {
      check_inputs(graph, name, where, fed);
    }
  }
}

Bundle Bundle::open(const fs::path& path, std::optional<Size> size) {
  check_name(path);
  Manifest manifest = read_manifest(path);
  if (size) {
    manifest = at_size(std::move(manifest), *size, path);
  }
  for (const auto& [name, graph] : manifest.graphs) {
    check_file(path, graph.file, graph.sha256, "graph '" + name + "'");
    check_graph_file(path / graph.file);
  }
  check_file(path, manifest.text.tokenizer, manifest.text.sha256, "the tokenizer");
  check_wiring(manifest, path);
  return {path, std::move(manifest)};
}

fs::path Bundle::graph_path(std::string_view name) const {
  return path_ / manifest().graph(name).file;
}

fs::path Bundle::tokenizer_path() const {
  return path_ / manifest().text.tokenizer;
}

std::string Bundle::fingerprint() const {
  std::map<std::string, std::string> hashes;
  for (const auto& [name, graph] : manifest().graphs) {
    hashes[name] = graph.sha256;
  }
  std::string joined;
  for (const auto& [name, hash] : hashes) {
    joined += hash;
  }
  return sha256_of(joined + manifest().text.sha256);
}

}  // namespace rvos_edge
