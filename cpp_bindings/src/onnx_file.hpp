/// @file
/// A look at the structure of an ONNX file, without loading it.
#pragma once

#include <istream>

namespace rvos_edge {

/// Contents of a file that claims to be ONNX.
enum class OnnxFile {
  /// One file with everything in it.
  whole,
  /// Weights lie in other files, which the bundle's hashes do not cover.
  external,
  /// Not an ONNX file, or one in an encoding that no exporter writes.
  invalid,
};

/// Walk the messages of an ONNX file; weights are skipped, so a large file is as quick as a small one.
/// @param file  Seekable, at its beginning.
[[nodiscard]] OnnxFile inspect_onnx(std::istream& file);

}  // namespace rvos_edge
