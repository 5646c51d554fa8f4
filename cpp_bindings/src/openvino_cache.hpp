/// @file
/// What OpenVINO found out once per machine, in the user's cache: files of the Python runtime too.
#pragma once

#include <filesystem>
#include <openvino/openvino.hpp>
#include <string>

namespace rvos_edge {

/// The folder `rvos-edge` in the user's cache; empty without a home.
[[nodiscard]] std::filesystem::path memory_folder();

/// A file's content; empty if it cannot be read.
[[nodiscard]] std::string read_kept(const std::filesystem::path& file);

/// Replace a file; where that fails, nothing is kept.
void keep(const std::filesystem::path& file, const std::string& content);

/// Compile a graph for the CPU, or read what an earlier process compiled, which takes a third of the time.
///
/// A kept file holds what `export_model` gave, and then its sha256. Its name is a hash of what it depends on: the graph,
/// the options, the CPU and the version of OpenVINO.
///
/// @param sha256  Hash of the ONNX file.
/// @throws std::runtime_error  OpenVINO cannot compile the graph.
[[nodiscard]] ov::CompiledModel compile_once(ov::Core& core, const std::filesystem::path& path,
                                             const std::string& sha256, const ov::AnyMap& options);

}  // namespace rvos_edge
