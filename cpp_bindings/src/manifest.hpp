/// @file
/// manifest.json -> Manifest. Fields that a runtime does not use are not looked into.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "rvos_edge/bundle.hpp"

namespace rvos_edge {

/// Parse a manifest.
/// @param path  Path of manifest.json, for messages.
/// @throws UserError  It is not JSON, lacks a field, has an unknown one or one of the wrong type or range.
[[nodiscard]] Manifest parse_manifest(std::string_view json, const std::filesystem::path& path);

/// A normalised path for messages, as valid UTF-8.
[[nodiscard]] std::string path_text(const std::filesystem::path& path);

}  // namespace rvos_edge
