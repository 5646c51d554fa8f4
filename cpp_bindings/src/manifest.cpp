#include "manifest.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>

#include "flow_constants.hpp"
#include "json_value.hpp"
#include "rvos_edge/error.hpp"
#include "unicode.hpp"

namespace rvos_edge {
namespace {

/// Upper bounds that no real network comes near: a damaged number must not become an endless frame.
constexpr std::int64_t most_tokens = 65536;
constexpr std::int64_t most_queries = 4096;
constexpr std::int64_t most_pixels = 16384;
constexpr std::int64_t largest_scale = 64;

constexpr const char* dtype_words[] = {"uint8", "int64", "float16", "float32"};
constexpr const char* arithmetic_words[] = {"float32", "float16", "bfloat16", "int8"};
constexpr const char* weight_words[] = {"float32", "float16", "int8"};

TensorSpec read_tensor(const Value& value) {
  Object object(value);
  TensorSpec spec;
  spec.name = object.need("name").text();
  spec.dtype = static_cast<DType>(object.need("dtype").choice(dtype_words));
  object.need("shape").items([&spec](const Value& dim) {
    if (dim.json().is_string()) {
      spec.shape.push_back({0, dim.text()});
    } else {
      spec.shape.push_back({dim.integer(), {}});
    }
  });
  object.done();
  return spec;
}

GraphSpec read_graph(const Value& value) {
  Object object(value);
  GraphSpec spec;
  spec.file = object.need("file").text();
  spec.sha256 = object.need("sha256").text();
  object.need("inputs").items([&spec](const Value& tensor) { spec.inputs.push_back(read_tensor(tensor)); });
  object.need("outputs").items([&spec](const Value& tensor) { spec.outputs.push_back(read_tensor(tensor)); });
  object.may("precision",
             [&spec](const Value& word) { spec.precision = static_cast<Arithmetic>(word.choice(arithmetic_words)); });
  object.may("weights", [&spec](const Value& word) { spec.weights = weight_words[word.choice(weight_words)]; });
  spec.flops = object.need("flops").integer();
  spec.weight_bytes = object.need("weight_bytes").integer();
  object.done();
  return spec;
}

Graphs read_graphs(const Value& value) {
  Graphs graphs;
  value.members(
      [&graphs](const std::string& name, const Value& graph) { graphs.emplace_back(name, read_graph(graph)); });
  return graphs;
}

TextSpec read_text(const Value& value) {
  Object object(value);
  TextSpec spec;
  object.may("tokenizer", [&spec](const Value& file) { spec.tokenizer = file.text(); });
  spec.sha256 = object.need("sha256").text();
  spec.max_tokens = static_cast<int>(object.need("max_tokens").integer(3, most_tokens));
  object.done();
  return spec;
}

std::optional<FlowSpec> read_flow(const Value& value) {
  if (value.json().is_null()) {
    return std::nullopt;
  }
  Object object(value);
  FlowSpec spec;
  spec.iterations = static_cast<int>(object.need("iterations").integer(1, flow_constants::max_iterations));
  spec.scale = static_cast<int>(object.need("scale").integer(1, largest_scale));
  object.done();
  return spec;
}

Size read_size(const Value& value) {
  std::vector<int> extents;
  value.items([&extents](const Value& pixels) { extents.push_back(static_cast<int>(pixels.integer(1, most_pixels))); });
  if (extents.size() != 2) {
    value.fail("must be [height, width]");
  }
  return {extents[0], extents[1]};
}

Manifest read(const Json& document) {
  Object object(Value(document, ""));
  Manifest manifest;
  const std::int64_t version = object.need("format_version").integer();
  if (version < oldest_format_version || version > format_version) {
    object.need("format_version")
        .fail("is " + std::to_string(version) + " and this library reads " + std::to_string(oldest_format_version) +
              " to " + std::to_string(format_version));
  }
  manifest.name = object.need("name").text();
  manifest.preset = object.need("preset").text();
  object.may("trained", [&manifest](const Value& trained) { manifest.trained = trained.boolean(); });
  manifest.size = read_size(object.need("size"));
  manifest.stride = static_cast<int>(object.need("stride").integer(1, most_pixels));
  manifest.text = read_text(object.need("text"));
  manifest.flow = read_flow(object.need("flow"));
  manifest.graphs = read_graphs(object.need("graphs"));
  object.need("states").members(
      [&manifest](const std::string& name, const Value& source) { manifest.states.emplace_back(name, source.text()); });
  object.may("sizes", [&manifest](const Value& sizes) {
    sizes.members([&manifest](const std::string& size, const Value& graphs) {
      manifest.sizes.emplace_back(size, read_graphs(graphs));
    });
  });
  object.may("max_queries", [&manifest](const Value& most) {
    manifest.max_queries = static_cast<int>(most.integer(1, most_queries));
  });
  object.need("licences").items([&manifest](const Value& name) { manifest.licences.push_back(name.text()); });
  // Provenance and proofs: known fields that the runtime does not use.
  for (const char* unused : {"network", "mean", "std", "tools", "checkpoint"}) {
    static_cast<void>(object.need(unused));
  }
  manifest.network = object.need("checkpoint_sha256").text();
  object.may("network_id", [&manifest](const Value& id) {
    // Older bundles have none.
    manifest.network = id.text().empty() ? manifest.network : id.text();
  });
  for (const char* unused : {"reference", "proofs"}) {
    object.may(unused, [](const Value&) {});
  }
  object.done();
  return manifest;
}

}  // namespace

std::string path_text(const std::filesystem::path& path) {
  return encode_utf8(decode_utf8(path.lexically_normal().string()));
}

Manifest parse_manifest(std::string_view json, const std::filesystem::path& path) {
  const auto refuse = [&path](const std::string& reason) -> UserError {
    return {ErrorCode::bad_bundle, path_text(path) + reason + "; export the bundle again."};
  };
  try {
    return read(parse_json(json));
  } catch (const Invalid& invalid) {
    throw refuse(invalid.field.empty() ? " " + invalid.reason : ": '" + invalid.field + "' " + invalid.reason);
  }
}

Manifest read_manifest(const std::filesystem::path& root) {
  const std::filesystem::path path = root / "manifest.json";
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) {
    throw UserError(ErrorCode::not_found, path_text(root) + " is not a bundle: it has no manifest.json; make one with "
                                                            "'rvos-edge export'.");
  }
  std::ifstream file(path, std::ios::binary);
  const std::string json{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return parse_manifest(json, path);
}

}  // namespace rvos_edge
