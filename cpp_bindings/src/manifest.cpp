#include "manifest.hpp"

#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "rvos_edge/error.hpp"

namespace rvos_edge {
namespace {

using Json = nlohmann::ordered_json;

/// Where in the document something is wrong, and what: the first thing pydantic would complain of.
struct Invalid {
  std::string where;
  std::string what;
};

/// A value of the document and the way to it.
class Value {
 public:
  Value(const Json& json, std::string where) : json_(&json), where_(std::move(where)) {}

  [[noreturn]] void fail(const std::string& what) const { throw Invalid{where_, what}; }
  [[nodiscard]] const Json& json() const noexcept { return *json_; }
  [[nodiscard]] bool null() const noexcept { return json_->is_null(); }

  [[nodiscard]] Value child(const Json& json, const std::string& name) const {
    return {json, where_.empty() ? name : where_ + "." + name};
  }

  [[nodiscard]] std::string text() const {
    if (!json_->is_string()) {
      fail("input should be a valid string");
    }
    return json_->get<std::string>();
  }

  [[nodiscard]] bool boolean() const {
    if (json_->is_number() && (*json_ == 0 || *json_ == 1)) {
      return *json_ == 1;
    }
    if (!json_->is_boolean()) {
      const bool guessed = json_->is_string() || json_->is_number();
      fail(guessed ? "input should be a valid boolean, unable to interpret input" : "input should be a valid boolean");
    }
    return json_->get<bool>();
  }

  [[nodiscard]] double number() const {
    if (json_->is_boolean()) {
      return json_->get<bool>() ? 1 : 0;
    }
    if (!json_->is_number()) {
      fail(json_->is_string() ? "input should be a valid number, unable to parse string as a number"
                              : "input should be a valid number");
    }
    return json_->get<double>();
  }

  [[nodiscard]] std::int64_t integer() const {
    if (json_->is_boolean()) {
      return json_->get<bool>() ? 1 : 0;
    }
    if (json_->is_number_unsigned() &&
        json_->get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      fail("input should be a smaller integer");
    }
    if (json_->is_number_integer()) {
      return json_->get<std::int64_t>();
    }
    if (json_->is_number_float()) {
      const double value = json_->get<double>();
      if (std::floor(value) != value) {
        fail("input should be a valid integer, got a number with a fractional part");
      }
      if (std::abs(value) >= 9e18) {
        fail("input should be a smaller integer");
      }
      return static_cast<std::int64_t>(value);
    }
    fail(json_->is_string() ? "input should be a valid integer, unable to parse string as an integer"
                            : "input should be a valid integer");
  }

  /// An integer no smaller than `least` that fits an int.
  [[nodiscard]] std::int64_t at_least(std::int64_t least) const {
    const std::int64_t value = integer();
    if (value < least) {
      fail("input should be greater than or equal to " + std::to_string(least));
    }
    return value;
  }
  [[nodiscard]] int small(std::int64_t least = std::numeric_limits<int>::min()) const {
    const std::int64_t value = at_least(least);
    if (value > std::numeric_limits<int>::max()) {
      fail("input should be a smaller integer");
    }
    return static_cast<int>(value);
  }

  /// One of a few words; returns which.
  [[nodiscard]] std::size_t choice(const std::vector<std::string>& words) const {
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (*json_ == words[i]) {
        return i;
      }
    }
    std::string list;
    for (std::size_t i = 0; i < words.size(); ++i) {
      list += (i == 0 ? "'" : i + 1 == words.size() ? " or '" : ", '") + words[i] + "'";
    }
    fail("input should be " + list);
  }

  /// Calls `visit(Value)` for each item of a list; `exact` items where that is not negative.
  template <class Visit>
  void items(Visit visit, int exact = -1) const {
    if (!json_->is_array()) {
      fail("input should be a valid tuple");
    }
    const auto most = static_cast<std::size_t>(exact);
    if (exact >= 0 && json_->size() > most) {
      fail("tuple should have at most " + std::to_string(exact) + " items after validation, not " +
           std::to_string(json_->size()));
    }
    for (std::size_t i = 0; i < json_->size(); ++i) {
      visit(child((*json_)[i], std::to_string(i)));
    }
    if (exact >= 0 && json_->size() < most) {
      child(*json_, std::to_string(json_->size())).fail("field required");
    }
  }

  /// Calls `visit(name, Value)` for each member of a dictionary.
  template <class Visit>
  void members(Visit visit) const {
    if (!json_->is_object()) {
      fail("input should be a valid dictionary");
    }
    for (const auto& [name, json] : json_->items()) {
      visit(name, child(json, name));
    }
  }

 private:
  const Json* json_;
  std::string where_;
};

/// The members of a model: each is asked for in order, and none may be left over.
class Model {
 public:
  Model(const Value& value, const char* type) : value_(value) {
    if (!value.json().is_object()) {
      value.fail(std::string("input should be a valid dictionary or instance of ") + type);
    }
  }

  [[nodiscard]] Value need(const char* name) {
    known_.insert(name);
    const auto found = value_.json().find(name);
    if (found == value_.json().end()) {
      value_.child(value_.json(), name).fail("field required");
    }
    return value_.child(*found, name);
  }

  /// Calls `visit(Value)` where the member is there.
  template <class Visit>
  void may(const char* name, Visit visit) {
    known_.insert(name);
    const auto found = value_.json().find(name);
    if (found != value_.json().end()) {
      visit(value_.child(*found, name));
    }
  }

  void done() const {
    for (const auto& [name, json] : value_.json().items()) {
      if (known_.count(name) == 0) {
        value_.child(json, name).fail("extra inputs are not permitted");
      }
    }
  }

 private:
  Value value_;
  std::set<std::string> known_;
};

const std::vector<std::string> dtype_words = {"uint8", "int64", "float16", "float32"};
const std::vector<std::string> arithmetic_words = {"float32", "float16", "bfloat16"};
const std::vector<std::string> weight_words = {"float32", "float16", "int8"};

TensorSpec read_tensor(const Value& value) {
  Model model(value, "tensorspec");
  TensorSpec spec;
  spec.name = model.need("name").text();
  spec.dtype = static_cast<DType>(model.need("dtype").choice(dtype_words));
  model.need("shape").items([&spec](const Value& dim) {
    if (dim.json().is_string()) {
      spec.shape.push_back({0, dim.text()});
    } else {
      spec.shape.push_back({dim.child(dim.json(), "int").integer(), {}});
    }
  });
  model.done();
  return spec;
}

GraphSpec read_graph(const Value& value) {
  Model model(value, "graphspec");
  GraphSpec spec;
  spec.file = model.need("file").text();
  spec.sha256 = model.need("sha256").text();
  model.need("inputs").items([&spec](const Value& tensor) { spec.inputs.push_back(read_tensor(tensor)); });
  model.need("outputs").items([&spec](const Value& tensor) { spec.outputs.push_back(read_tensor(tensor)); });
  model.may("precision",
            [&spec](const Value& word) { spec.precision = static_cast<Arithmetic>(word.choice(arithmetic_words)); });
  model.may("weights", [&spec](const Value& word) { spec.weights = weight_words[word.choice(weight_words)]; });
  spec.flops = model.need("flops").at_least(0);
  spec.weight_bytes = model.need("weight_bytes").at_least(0);
  model.done();
  return spec;
}

Graphs read_graphs(const Value& value) {
  Graphs graphs;
  value.members(
      [&graphs](const std::string& name, const Value& graph) { graphs.emplace_back(name, read_graph(graph)); });
  return graphs;
}

TextSpec read_text(const Value& value) {
  Model model(value, "textspec");
  TextSpec spec;
  model.may("tokenizer", [&spec](const Value& file) { spec.tokenizer = file.text(); });
  spec.sha256 = model.need("sha256").text();
  const Value most = model.need("max_tokens");
  if (most.integer() <= 2) {
    most.fail("input should be greater than 2");
  }
  spec.max_tokens = most.small();
  model.done();
  return spec;
}

FlowSpec read_flow(const Value& value) {
  Model model(value, "flowspec");
  FlowSpec spec;
  spec.iterations = model.need("iterations").small(1);
  spec.scale = model.need("scale").small(1);
  model.done();
  return spec;
}

void check_texts(const Value& value) {
  value.members([](const std::string&, const Value& text) { static_cast<void>(text.text()); });
}

void check_numbers(const Value& value) {
  value.items([](const Value& number) { static_cast<void>(number.number()); }, 3);
}

/// What the network was made of: of no use here, but a manifest that is wrong in it is wrong.
void check_network(const Value& value) {
  value.members([](const std::string&, const Value& fact) {
    if (fact.json().is_array()) {
      fact.items([](const Value& number) { static_cast<void>(number.integer()); });
    } else if (fact.json().is_object() || fact.null()) {
      fact.child(fact.json(), "str").fail("input should be a valid string");
    }
  });
}

void check_proof(const Value& value) {
  Model model(value, "proof");
  static_cast<void>(model.need("backend").text());
  model.may("note", [](const Value& note) { static_cast<void>(note.text()); });
  model.need("graphs").members([](const std::string&, const Value& parity) {
    Model figures(parity, "parity");
    for (const char* name : {"max_abs", "relative_l2", "cosine"}) {
      static_cast<void>(figures.need(name).number());
    }
    figures.done();
  });
  const Value iou = model.need("mask_iou");
  if (!iou.null() && iou.number() < 0) {
    iou.fail("input should be greater than or equal to 0");
  }
  if (!iou.null() && iou.number() > 1) {
    iou.fail("input should be less than or equal to 1");
  }
  static_cast<void>(model.need("frames").integer());
  static_cast<void>(model.need("source").text());
  model.done();
}

void check_reference(const Value& value) {
  if (value.null()) {
    return;
  }
  Model model(value, "referencespec");
  static_cast<void>(model.need("file").text());
  static_cast<void>(model.need("sha256").text());
  model.done();
}

Manifest read(const Json& document) {
  Model model(Value(document, ""), "manifest");
  Manifest manifest;
  static_cast<void>(model.need("format_version").integer());
  manifest.name = model.need("name").text();
  manifest.preset = model.need("preset").text();
  model.may("trained", [&manifest](const Value& trained) { manifest.trained = trained.boolean(); });
  check_network(model.need("network"));
  int extents[2] = {};
  int* extent = extents;
  model.need("size").items([&extent](const Value& pixels) { *extent++ = pixels.small(); }, 2);
  manifest.size = {extents[0], extents[1]};
  manifest.stride = model.need("stride").small();
  check_numbers(model.need("mean"));
  check_numbers(model.need("std"));
  manifest.text = read_text(model.need("text"));
  if (const Value flow = model.need("flow"); !flow.null()) {
    manifest.flow = read_flow(flow);
  }
  manifest.graphs = read_graphs(model.need("graphs"));
  model.need("states").members(
      [&manifest](const std::string& name, const Value& source) { manifest.states.emplace_back(name, source.text()); });
  model.may("sizes", [&manifest](const Value& sizes) {
    sizes.members([&manifest](const std::string& size, const Value& graphs) {
      manifest.sizes.emplace_back(size, read_graphs(graphs));
    });
  });
  model.may("max_queries", [&manifest](const Value& most) { manifest.max_queries = most.small(1); });
  model.may("reference", check_reference);
  model.may("proofs", [](const Value& proofs) {
    proofs.members([](const std::string&, const Value& proof) { check_proof(proof); });
  });
  check_texts(model.need("tools"));
  static_cast<void>(model.need("checkpoint").text());
  static_cast<void>(model.need("checkpoint_sha256").text());
  model.may("network_id", [](const Value& hash) { static_cast<void>(hash.text()); });
  model.need("licences").items([&manifest](const Value& name) { manifest.licences.push_back(name.text()); });
  model.done();
  return manifest;
}

/// nlohmann's message without the name of the exception.
std::string detail(const Json::exception& error) {
  const std::string text = error.what();
  const std::size_t end = text.find("] ");
  return end == std::string::npos ? text : text.substr(end + 2);
}

}  // namespace

std::string path_text(const std::filesystem::path& path) {
  std::string text = path.is_absolute() ? "/" : "";
  for (const auto& part : path.relative_path()) {
    if (!part.empty() && part != ".") {
      text += (text.empty() || text.back() == '/' ? "" : "/") + part.string();
    }
  }
  return text.empty() ? "." : text;
}

Manifest parse_manifest(std::string_view json, const std::filesystem::path& path) {
  const auto refuse = [&path](const std::string& rest) -> UserError {
    return {ErrorCode::bad_bundle, path_text(path) + rest};
  };
  try {
    const Json document = Json::parse(json.begin(), json.end());
    const auto version = document.is_object() ? document.find("format_version") : document.end();
    const auto readable = [](const Json& number) {
      return number.is_number_integer() && number >= oldest_format_version && number <= format_version;
    };
    if (document.is_object() && version != document.end() && !version->is_null() && !readable(*version)) {
      const std::string found = version->is_string() ? version->get<std::string>() : version->dump();
      throw refuse(" has format version " + found + ", this runtime reads " + std::to_string(oldest_format_version) +
                   " to " + std::to_string(format_version) + "; export it again.");
    }
    return read(document);
  } catch (const Json::exception& error) {
    throw refuse(" is not readable JSON (" + detail(error) + "); export the bundle again.");
  } catch (const Invalid& invalid) {
    throw refuse(": '" + invalid.where + "': " + invalid.what + "; export the bundle again.");
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
