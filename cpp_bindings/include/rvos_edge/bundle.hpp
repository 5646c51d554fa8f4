/// @file
/// The bundle: a directory of ONNX graphs with a manifest; the contract between export and every runtime.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rvos_edge/image.hpp"

namespace rvos_edge {

/// The format of the bundles that this library reads.
inline constexpr int format_version = 4;
/// Bundles from here on are read too: this one has no `boundary` graph, and up to 3 `gating` gives no `presence`.
inline constexpr int oldest_format_version = 2;

/// Element type of a tensor.
enum class DType { uint8, int64, float16, float32 };

/// NumPy's name of a type: "uint8", "int64", "float16", "float32".
[[nodiscard]] std::string_view dtype_name(DType dtype) noexcept;
/// Bytes per element.
[[nodiscard]] std::size_t dtype_bytes(DType dtype) noexcept;

/// What a graph computes in. The file states float32 or float16; bfloat16 is a float32 file and leave to be narrower.
enum class Arithmetic { float32, float16, bfloat16 };

/// An extent: fixed, or symbolic ("Q" queries, "L" tokens).
struct Dim {
  /// The extent; of no meaning where there is a symbol.
  std::int64_t extent = 0;
  /// Empty for a fixed extent.
  std::string symbol;

  friend bool operator==(const Dim& a, const Dim& b) { return a.extent == b.extent && a.symbol == b.symbol; }
  friend bool operator!=(const Dim& a, const Dim& b) { return !(a == b); }
};

/// Name, dtype and shape of a graph input or output.
struct TensorSpec {
  std::string name;
  DType dtype = DType::float32;
  std::vector<Dim> shape;

  friend bool operator==(const TensorSpec& a, const TensorSpec& b) {
    return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape;
  }
  friend bool operator!=(const TensorSpec& a, const TensorSpec& b) { return !(a == b); }
};

/// One ONNX graph of the bundle.
struct GraphSpec {
  /// Path of the ONNX file, relative to the bundle.
  std::string file;
  std::string sha256;
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  Arithmetic precision = Arithmetic::float32;
  /// How the weights are stored: "float32", "float16" or "int8"; they are widened when the graph is loaded.
  std::string weights = "float32";
  /// 2 x multiply-add of one run (one query for `gating`, 20 tokens for `text`).
  std::int64_t flops = 0;
  std::int64_t weight_bytes = 0;
};

/// Graphs by name, in the order of the manifest.
using Graphs = std::vector<std::pair<std::string, GraphSpec>>;

/// What the tokenizer must do.
struct TextSpec {
  std::string tokenizer = "tokenizer.json";
  std::string sha256;
  /// Longest query in tokens, [CLS] and [SEP] included.
  int max_tokens = 0;
};

/// Flow defaults; the runtime may change the iterations, the rest is fixed by the graphs.
struct FlowSpec {
  int iterations = 0;
  /// The flow is computed on the image reduced by this factor; the `flow` tensor is in pixels of the image.
  int scale = 0;
};

/// manifest.json: what a runtime needs to know about the graphs beside it.
struct Manifest {
  std::string name;
  std::string preset;
  /// False for a network put together from the weights of its parts: its masks mean nothing.
  bool trained = true;
  /// Height and width of `image`, uint8 [H,W,3] BGR; normalisation is inside the graphs.
  Size size;
  /// Pixels of `image` per pixel of `margin`.
  int stride = 0;
  TextSpec text;
  std::optional<FlowSpec> flow;
  Graphs graphs;
  /// Input and output whose buffers swap after a run: `fmap_prev` takes `fmap` at the end of a frame.
  std::vector<std::pair<std::string, std::string>> states;
  /// Further input sizes, "HxW" -> its own graphs; `text` is shared.
  std::vector<std::pair<std::string, Graphs>> sizes;
  /// Most queries that engines with fixed profiles are made for.
  int max_queries = 64;
  std::vector<std::string> licences;

  /// A graph by its name, or null.
  [[nodiscard]] const GraphSpec* find(std::string_view graph) const noexcept;
  /// A graph by its name; throws std::out_of_range where there is none.
  [[nodiscard]] const GraphSpec& graph(std::string_view wanted) const;
  /// The graphs that see a frame, in the order in which they run: `backbone` and `aspp`, or `vision`.
  [[nodiscard]] std::vector<std::string> vision_graphs() const;
  /// The graphs that answer the queries, in the order in which they run: `gating` and, where there is one, `boundary`;
  /// the last one gives the margin.
  [[nodiscard]] std::vector<std::string> answer_graphs() const;
  /// Whether any graph may be computed in bfloat16.
  [[nodiscard]] bool allows_bfloat16() const noexcept;
};

/// "288x512": height first, as in the options.
[[nodiscard]] std::string format_size(Size size);

/// Read manifest.json alone, without looking at the files beside it; UserError where it is missing, unreadable or of
/// another format version.
[[nodiscard]] Manifest read_manifest(const std::filesystem::path& root);

/// Verify that every graph input is fed by a tensor of the same name, dtype and shape; UserError names the one that is
/// not.
void check_wiring(const Manifest& manifest, const std::filesystem::path& root);

/// An opened, verified bundle. A value: copies share the manifest, and may be used by several threads.
///
///     auto bundle = rvos_edge::Bundle::open("my-bundle");
///     rvos_edge::Segmenter segmenter(bundle);
class Bundle {
 public:
  /// Read and verify a bundle directory: the files of one input size, which are what a runtime loads.
  ///
  /// @param path  The directory.
  /// @param size  Height and width of the input, one of those it was exported for; none for its first.
  /// @throws UserError  It is missing, damaged, of another format version, lacks the size, names a file outside
  ///                    itself, or its wiring does not close.
  [[nodiscard]] static Bundle open(const std::filesystem::path& path, std::optional<Size> size = std::nullopt);

  /// The directory.
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  /// Its manifest, as the chosen input size sees it.
  [[nodiscard]] const Manifest& manifest() const noexcept { return *manifest_; }
  /// Path of a graph's ONNX file.
  [[nodiscard]] std::filesystem::path graph_path(std::string_view name) const;
  /// Path of tokenizer.json.
  [[nodiscard]] std::filesystem::path tokenizer_path() const;
  /// sha256 over the hashes of all files: the key of anything computed with this bundle.
  [[nodiscard]] std::string fingerprint() const;

 private:
  Bundle(std::filesystem::path path, Manifest manifest)
      : path_(std::move(path)), manifest_(std::make_shared<const Manifest>(std::move(manifest))) {}

  std::filesystem::path path_;
  std::shared_ptr<const Manifest> manifest_;
};

}  // namespace rvos_edge
