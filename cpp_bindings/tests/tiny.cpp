#include "tiny.hpp"

#include <unistd.h>

#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>

#include "rvos_edge/error.hpp"
#include "sha256.hpp"
#include "teaching.hpp"

namespace tiny {
namespace {

using namespace rvos_edge;

constexpr int cells_high = height / stride;
constexpr int cells_wide = width / stride;
constexpr std::size_t cells = std::size_t{cells_high} * cells_wide;

// An ONNX file without a graph: its version alone. The engine of the tiny bundle does not read it.
const char* const onnx = "\x08\x08";

Json tensor(const char* name, Json shape, const char* dtype = "float32") {
  return {{"name", name}, {"dtype", dtype}, {"shape", std::move(shape)}};
}

Json graph(const char* name, Json inputs, Json outputs) {
  return {{"file", std::string(name) + ".onnx"},
          {"sha256", sha256_of(onnx)},
          {"inputs", std::move(inputs)},
          {"outputs", std::move(outputs)},
          {"precision", "float32"},
          {"weights", "float32"},
          {"flops", 1},
          {"weight_bytes", 1}};
}

float* floats(Board& board, const char* name) {
  return static_cast<float*>(board.buffer(name).host());
}

/// A graph whose computation depends on its name.
class TinyGraph final : public Graph {
 public:
  TinyGraph(std::string name, Board& board, Journal& journal)
      : name_(std::move(name)), board_(board), journal_(journal) {}

  void run() override {
    journal_.runs.push_back(name_);
    if (journal_.fails == name_) {
      journal_.fails.clear();
      throw UserError(ErrorCode::engine, "graph '" + name_ + "' fails.");
    }
    if (name_ == "backbone") {
      see();
    } else if (name_ == "flow_encode") {
      std::copy_n(floats(board_, "c2"), cells, floats(board_, "fmap"));
    } else if (name_ == "flow_context") {
      for (std::size_t i = 0; i < cells; ++i) {
        floats(board_, "hidden")[i] = floats(board_, "fmap")[i] - floats(board_, "fmap_prev")[i];
      }
    } else if (name_ == "flow_step") {
      std::copy_n(floats(board_, "hidden"), cells, floats(board_, "hidden_next"));
      for (std::size_t i = 0; i < 2 * cells; ++i) {
        floats(board_, "coords_next")[i] = floats(board_, "coords")[i] + 1;
      }
    } else if (name_ == "flow_up") {
      std::copy_n(floats(board_, "coords"), 2 * cells, floats(board_, "flow"));
    } else if (name_ == "gating") {
      gate();
    }
  }

 private:
  /// c2: the blue of every cell's corner, from -128 to 127.
  void see() {
    const auto* image = static_cast<const std::uint8_t*>(board_.buffer("image").host());
    for (std::size_t i = 0; i < cells; ++i) {
      const std::size_t row = i / cells_wide * stride;
      const std::size_t column = i % cells_wide * stride;
      floats(board_, "c2")[i] = static_cast<float>(image[3 * (row * width + column)]) - 128;
    }
  }

  /// margin: c2 times the number of words; presence: the less, the more words.
  void gate() {
    const auto queries = static_cast<std::size_t>(board_.shape("margin")[0]);
    for (std::size_t query = 0; query < queries; ++query) {
      for (std::size_t i = 0; i < cells; ++i) {
        floats(board_, "margin")[query * cells + i] = floats(board_, "c2")[i] * floats(board_, "lang1")[2 * query];
      }
      if (board_.contains("presence")) {
        const float words = floats(board_, "lang1")[2 * query];
        floats(board_, "presence")[query] = 1 / (1 + words * words);
      }
    }
  }

  std::string name_;
  Board& board_;
  Journal& journal_;
};

class TinyText final : public HostGraph {
 public:
  explicit TinyText(Journal& journal) : journal_(journal) {}
  std::vector<HostTensor> run(const std::vector<HostTensor>& inputs) override {
    ++journal_.texts;
    const float values[2] = {static_cast<float>(inputs.front().shape[1] - 2), 1};
    HostTensor vector{"lang1", DType::float32, {1, 2}, {}};
    const auto* bytes = reinterpret_cast<const std::byte*>(values);
    vector.data.assign(bytes, bytes + sizeof values);
    return {vector};
  }

 private:
  Journal& journal_;
};

/// margin: c2 times the number of words; the gradient of what is taught is 1 everywhere.
class TinyTeach final : public HostGraph {
 public:
  explicit TinyTeach(std::string name) : name_(std::move(name)) {}
  std::vector<HostTensor> run(const std::vector<HostTensor>& inputs) override {
    const auto input = [&inputs](const char* name) {
      return *std::find_if(inputs.begin(), inputs.end(), [name](const HostTensor& one) { return one.name == name; });
    };
    if (name_ == "teach") {
      return {make_tensor("loss", {1}, {0}), make_tensor("grad1", {1, 2}, {1, 1})};
    }
    const Vectors given = row_of({input("c2"), input("lang1")}, 0);
    std::vector<float> margin(cells, given.at("lang1").front());
    return {make_tensor("margin", {1, cells_high, cells_wide}, margin), make_tensor("presence", {1}, {1})};
  }

 private:
  std::string name_;
};

class TinyBackend final : public Backend {
 public:
  explicit TinyBackend(Journal& journal)
      : journal_(journal),
        board_([](DType dtype, const Shape& shape) { return std::make_shared<HostBuffer>(dtype, shape); }) {}
  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] const std::string& reason() const noexcept override { return name_; }
  [[nodiscard]] Board& board() noexcept override { return board_; }
  std::unique_ptr<Graph> load(const std::string& name, const std::filesystem::path& /*path*/,
                              const GraphSpec& spec) override {
    for (const auto* tensors : {&spec.inputs, &spec.outputs}) {
      for (const TensorSpec& one : *tensors) {
        board_.declare(one);
      }
    }
    return std::make_unique<TinyGraph>(name, board_, journal_);
  }
  std::unique_ptr<HostGraph> load_host(const std::filesystem::path& path, const GraphSpec& /*spec*/) override {
    if (path.stem() != "text") {
      return std::make_unique<TinyTeach>(path.stem().string());
    }
    return std::make_unique<TinyText>(journal_);
  }

 private:
  std::string name_ = "tiny";
  Journal& journal_;
  Board board_;
};

}  // namespace

Folder::Folder() {
  static std::atomic<int> number{0};
  path_ = std::filesystem::temp_directory_path() /
          ("rvos_edge_" + std::to_string(::getpid()) + "_" + std::to_string(number++));
  std::filesystem::create_directories(path_);
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string tokenizer() {
  Json vocabulary;
  int id = 0;
  for (const char* word : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "the", "red", "ball", "dog", "##s", "caf", "##e"}) {
    vocabulary[word] = id++;
  }
  const Json document = {{"normalizer", {{"type", "BertNormalizer"}, {"lowercase", true}}},
                         {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
                         {"post_processor", {{"type", "BertProcessing"}, {"sep", {"[SEP]", 3}}, {"cls", {"[CLS]", 2}}}},
                         {"model",
                          {{"type", "WordPiece"},
                           {"unk_token", "[UNK]"},
                           {"continuing_subword_prefix", "##"},
                           {"max_input_chars_per_word", 100},
                           {"vocab", vocabulary}}}};
  return document.dump();
}

Json manifest(bool flow) {
  const Json image = tensor("image", {height, width, 3}, "uint8");
  const Json map = {1, 1, cells_high, cells_wide};
  const Json coords = {1, 2, cells_high, cells_wide};
  Json graphs;
  graphs["text"] = graph("text", {tensor("input_ids", {1, "L"}, "int64"), tensor("attention_mask", {1, "L"}, "int64")},
                         Json::array({tensor("lang1", {"Q", 2})}));
  graphs["backbone"] = graph("backbone", Json::array({image}), Json::array({tensor("c2", map)}));
  graphs["aspp"] = graph("aspp", Json::array({tensor("c2", map)}), Json::array({tensor("v4", map)}));
  Json seen = {tensor("c2", map), tensor("v4", map), tensor("lang1", {"Q", 2})};
  Json states = Json::object();
  if (flow) {
    graphs["flow_encode"] = graph("flow_encode", Json::array({image}), Json::array({tensor("fmap", map)}));
    graphs["flow_context"] =
        graph("flow_context", {tensor("fmap", map), tensor("fmap_prev", map)}, Json::array({tensor("hidden", map)}));
    graphs["flow_step"] = graph("flow_step", {tensor("hidden", map), tensor("coords", coords)},
                                {tensor("hidden_next", map), tensor("coords_next", coords)});
    graphs["flow_up"] =
        graph("flow_up", Json::array({tensor("coords", coords)}), Json::array({tensor("flow", coords)}));
    seen.push_back(tensor("flow", coords));
    states = {{"fmap_prev", "fmap"}, {"hidden", "hidden_next"}, {"coords", "coords_next"}};
  }
  graphs["gating"] = graph("gating", seen, Json::array({tensor("margin", {"Q", cells_high, cells_wide})}));
  return {{"format_version", 4},
          {"name", "tiny"},
          {"preset", "test"},
          {"network", {{"flow", flow ? "both" : "none"}}},
          {"size", {height, width}},
          {"stride", stride},
          {"mean", {0, 0, 0}},
          {"std", {1, 1, 1}},
          {"text", {{"tokenizer", "tokenizer.json"}, {"sha256", sha256_of(tokenizer())}, {"max_tokens", 8}}},
          {"flow", flow ? Json{{"iterations", iterations}, {"scale", 1}} : Json()},
          {"graphs", graphs},
          {"states", states},
          {"tools", Json::object()},
          {"checkpoint", "none"},
          {"checkpoint_sha256", std::string(64, '0')},
          {"licences", Json::array({"Apache-2.0"})}};
}

Json manifest_that_learns() {
  Json learns = manifest(false);
  Json& gating = learns["graphs"]["gating"];
  gating["outputs"].push_back(tensor("presence", {"Q"}));
  const Json map = {1, 1, cells_high, cells_wide};
  learns["graphs"]["teach"] =
      graph("teach", {tensor("c2", map), tensor("lang1", {1, 2}), tensor("target", map), tensor("weight", map)},
            {tensor("loss", Json::array({1})), tensor("grad1", {1, 2})});
  return learns;
}

void write_bundle(const std::filesystem::path& folder, const Json& changed) {
  write_file(folder / "manifest.json", changed.dump());
  write_file(folder / "tokenizer.json", tokenizer());
  for (const char* name :
       {"text", "backbone", "aspp", "flow_encode", "flow_context", "flow_step", "flow_up", "gating", "teach"}) {
    write_file(folder / (std::string(name) + ".onnx"), onnx);
  }
}

std::unique_ptr<Backend> make_backend(Journal& journal) {
  return std::make_unique<TinyBackend>(journal);
}

}  // namespace tiny
