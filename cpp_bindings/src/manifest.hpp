/// @file
/// manifest.json -> Manifest, as strict as the models of the Python runtime.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "rvos_edge/bundle.hpp"

namespace rvos_edge {

/// Parse a manifest; UserError with the sentence of the Python runtime.
/// @param path  Of manifest.json, for the sentences.
[[nodiscard]] Manifest parse_manifest(std::string_view json, const std::filesystem::path& path);

/// A path as Python's `pathlib` writes it: no "." and no doubled separators.
[[nodiscard]] std::string path_text(const std::filesystem::path& path);

}  // namespace rvos_edge
