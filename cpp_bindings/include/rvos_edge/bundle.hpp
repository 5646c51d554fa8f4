/// @file
/// The bundle: a directory of ONNX graphs with a manifest. It is the contract between export and every runtime.
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

#include "rvos_edge/api.h"
#include "rvos_edge/image.hpp"

namespace rvos_edge {

/// Newest bundle format that this library reads.
inline constexpr int format_version = 5;
/// Oldest bundle format that this library reads.
inline constexpr int oldest_format_version = 2;

/// Element type of a tensor.
enum class DType { uint8, int64, float16, float32 };

/// NumPy's name of a type: "uint8", "int64", "float16", "float32".
[[nodiscard]] RVOS_EDGE_API std::string_view dtype_name(DType dtype) noexcept;
/// Bytes per element.
[[nodiscard]] RVOS_EDGE_API std::size_t dtype_bytes(DType dtype) noexcept;

/// Arithmetic of a graph. bfloat16 is a float32 file that may be computed in bfloat16; int8 is a file with quantised
/// layers, whose other layers may be computed in bfloat16.
enum class Arithmetic { float32, float16, bfloat16, int8 };

/// An extent: fixed, or symbolic ("Q" queries, "L" tokens).
struct Dim {
  /// The extent; unused if there is a symbol.
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
  /// Storage of the weights: "float32", "float16" or "int8"; they are widened when the graph is loaded.
  std::string weights = "float32";
  /// Operations of one run, counting a multiply-add as two (one query for `gating`, 20 tokens for `text`).
  std::int64_t flops = 0;
  std::int64_t weight_bytes = 0;
};

/// Graphs by name, in the order of the manifest.
using Graphs = std::vector<std::pair<std::string, GraphSpec>>;

/// The tokenizer's file and limit.
struct TextSpec {
  std::string tokenizer = "tokenizer.json";
  std::string sha256;
  /// Longest query in tokens, [CLS] and [SEP] included.
  int max_tokens = 0;
};

/// Flow settings of the bundle. The runtime may change the iterations; the rest is fixed by the graphs.
struct FlowSpec {
  int iterations = 0;
  /// The flow is computed on the image reduced by this factor; the `flow` tensor is in pixels of the image.
  int scale = 0;
};

/// Contents of manifest.json that a runtime uses.
struct RVOS_EDGE_API Manifest {
  std::string name;
  std::string preset;
  /// False for a network assembled from pretrained parts, whose masks are meaningless.
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
  /// Further input sizes, "HxW" -> graphs; `text` is shared.
  std::vector<std::pair<std::string, Graphs>> sizes;
  /// Largest number of queries that engines with fixed profiles are built for.
  int max_queries = 64;
  /// Identity of the network's weights, which a taught query must match.
  std::string network;
  std::vector<std::string> licences;

  /// A graph by its name, or null.
  [[nodiscard]] const GraphSpec* find(std::string_view graph) const noexcept;
  /// A graph by its name; throws std::out_of_range if there is none.
  [[nodiscard]] const GraphSpec& graph(std::string_view wanted) const;
  /// Graphs that encode a frame, in running order: `backbone` and `aspp`, or `vision`.
  [[nodiscard]] std::vector<std::string> vision_graphs() const;
  /// Graphs that decode the queries, in running order: `gating` and, if the bundle has it, `boundary`. The last one
  /// outputs the margin.
  [[nodiscard]] std::vector<std::string> answer_graphs() const;
  /// True if `gating` outputs the presence of each query.
  [[nodiscard]] bool has_presence() const noexcept;
  /// True if any graph may be computed in bfloat16.
  [[nodiscard]] bool allows_bfloat16() const noexcept;
};

/// "288x512": height first, as in the options.
[[nodiscard]] RVOS_EDGE_API std::string format_size(Size size);

/// Read manifest.json without checking the files beside it.
/// @throws UserError  It is missing, unreadable or of another format version.
[[nodiscard]] RVOS_EDGE_API Manifest read_manifest(const std::filesystem::path& root);

/// Verify that every graph input is fed by a tensor of the same name, dtype and shape.
/// @throws UserError  An input is not; the message names it.
RVOS_EDGE_API void check_wiring(const Manifest& manifest, const std::filesystem::path& root);

/// An opened and verified bundle. Copies share the manifest, and may be used by several threads.
///
///     auto bundle = rvos_edge::Bundle::open("my-bundle");
///     rvos_edge::Segmenter segmenter(bundle);
class RVOS_EDGE_API Bundle {
 public:
  /// Read and verify a bundle directory: the files of one input size.
  ///
  /// @param path  The directory, a name in UTF-8.
  /// @param size  Height and width of the input, one that the bundle was exported for; none for its first.
  /// @throws UserError  The bundle is missing, damaged, of another format version, lacks the size, uses a file outside
  ///                    itself, or its wiring does not close.
  [[nodiscard]] static Bundle open(const std::filesystem::path& path, std::optional<Size> size = std::nullopt);

  /// The directory.
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  /// The manifest, with the graphs of the chosen input size.
  [[nodiscard]] const Manifest& manifest() const noexcept { return *manifest_; }
  /// Path of a graph's ONNX file.
  [[nodiscard]] std::filesystem::path graph_path(std::string_view name) const;
  /// Path of tokenizer.json.
  [[nodiscard]] std::filesystem::path tokenizer_path() const;
  /// sha256 over the hashes of all files: a key for anything computed with this bundle.
  [[nodiscard]] std::string fingerprint() const;

 private:
  Bundle(std::filesystem::path path, Manifest manifest)
      : path_(std::move(path)), manifest_(std::make_shared<const Manifest>(std::move(manifest))) {}

  std::filesystem::path path_;
  std::shared_ptr<const Manifest> manifest_;
};

}  // namespace rvos_edge
