#include "engine_cache.hpp"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "manifest.hpp"
#include "rvos_edge/error.hpp"
#include "sha256.hpp"

namespace rvos_edge {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

struct Entry {
  fs::path folder;
  Json key;
  std::string sha256;
};

/// Readable entries in the order of their names; damaged ones are skipped.
std::vector<Entry> read_entries(const fs::path& root, const std::string& graph) {
  std::vector<Entry> entries;
  std::error_code problem;
  for (fs::directory_iterator at(root, problem), end; !problem && at != end; at.increment(problem)) {
    std::ifstream file(at->path() / "key.json");
    const Json entry = Json::parse(file, nullptr, false);
    if (entry.is_object() && entry.value("key", Json()).is_object() && entry.value("sha256", Json()).is_string() &&
        entry["key"].value("graph", Json()) == graph) {
      entries.push_back({at->path(), entry["key"], entry["sha256"]});
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.folder < b.folder; });
  return entries;
}

Json shapes_of(const GraphSpec& spec) {
  Json shapes = Json::object();
  for (const TensorSpec& tensor : spec.inputs) {
    Json shape = Json::array();
    for (const Dim& dim : tensor.shape) {
      shape.push_back(dim.symbol.empty() ? Json(dim.extent) : Json(dim.symbol));
    }
    shapes[tensor.name] = shape;
  }
  return shapes;
}

/// "10.3.0" of "10.3.0.26": engines do not depend on the fourth number.
std::string three_numbers(const std::string& version) {
  std::size_t end = 0;
  for (int dots = 0; end < version.size(); ++end) {
    if (version[end] == '.' && ++dots == 3) {
      break;
    }
  }
  return version.substr(0, end);
}

std::string text_of(const Json& key, const char* name) {
  const Json value = key.value(name, Json());
  return value.is_string() ? value.get<std::string>() : "";
}

/// True for an engine that was built elsewhere for this compute capability.
bool is_aimed(const Json& key, const EngineAim& aim) {
  const Json capabilities = key.value("capabilities", Json::array());
  return text_of(key, "gpu").empty() &&
         std::find(capabilities.begin(), capabilities.end(), Json(aim.capability)) != capabilities.end();
}

/// Differences between an engine and the need, for people; the nearest engine has the fewest.
std::vector<std::string> differences(const Json& key, const GraphSpec& spec, int max_queries, const EngineAim& aim) {
  std::vector<std::string> found;
  const auto compare = [&found](const char* word, const std::string& there, const std::string& needed) {
    if (there != needed) {
      found.push_back(std::string(word) + " " + (there.empty() ? "none" : there.substr(0, 16)) + " and not " +
                      needed.substr(0, 16));
    }
  };
  const char* precisions[] = {"float32", "float16", "bfloat16", "int8"};
  compare("the graph file", text_of(key, "onnx_sha256"), spec.sha256);
  compare("target", text_of(key, "flavour"), aim.flavour);
  compare("version", three_numbers(text_of(key, "version")), three_numbers(aim.version));
  if (!is_aimed(key, aim)) {
    compare("GPU", text_of(key, "gpu"), aim.gpu);
  }
  if (key.value("shapes", Json()) != shapes_of(spec)) {
    found.emplace_back("other shapes");
  }
  compare("queries up to", key.value("max_queries", Json()).dump(), std::to_string(max_queries));
  compare("precision", text_of(key, "precision"), precisions[static_cast<int>(spec.precision)]);
  return found;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) {
    text += (text.empty() ? "" : ", ") + part;
  }
  return text;
}

}  // namespace

fs::path find_engine(const Bundle& bundle, const std::string& graph, const EngineAim& aim) {
  const GraphSpec& spec = bundle.manifest().graph(graph);
  std::optional<std::vector<std::string>> nearest;
  for (const Entry& entry : read_entries(bundle.path() / "engines", graph)) {
    std::vector<std::string> apart = differences(entry.key, spec, bundle.manifest().max_queries, aim);
    fs::path path = entry.folder / (graph + ".engine");
    if (apart.empty() && sha256_of_file(path) == entry.sha256) {
      return path;
    }
    if (!nearest || apart.size() < nearest->size()) {
      nearest = std::move(apart);
    }
  }
  std::string reason = "there is no engine of graph '" + graph + "'";
  if (nearest) {
    reason = "the engine of graph '" + graph + "' " +
             (nearest->empty() ? std::string("is damaged") : "was made for " + joined(*nearest));
  }
  throw UserError(ErrorCode::unsupported_backend, path_text(bundle.path()) + ": " + reason + "; run: rvos-edge build " +
                                                      path_text(bundle.path()) + " --target " + aim.flavour);
}

}  // namespace rvos_edge
