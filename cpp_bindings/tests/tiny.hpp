/// @file
/// A bundle whose graphs are computed in C++, so that tests need no engine.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "rvos_edge/engine.hpp"

namespace tiny {

using Json = nlohmann::ordered_json;

inline constexpr int height = 36;
inline constexpr int width = 64;
inline constexpr int stride = 4;
inline constexpr int iterations = 3;

/// A temporary folder, removed with the object.
class Folder {
 public:
  Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder();
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
};

void write_file(const std::filesystem::path& path, const std::string& bytes);
[[nodiscard]] std::string read_file(const std::filesystem::path& path);

/// manifest.json of the bundle, with the hashes of the files of `write_bundle`.
[[nodiscard]] Json manifest(bool flow = true);
/// The same without flow, with the output `presence` and the graph `teach`, whose gradient is always 1.
[[nodiscard]] Json manifest_that_learns();
/// tokenizer.json of a few words.
[[nodiscard]] std::string tokenizer();
/// Write the bundle, with `changed` as its manifest.
void write_bundle(const std::filesystem::path& folder, const Json& changed = manifest());

/// Events in a backend.
struct Journal {
  /// Graphs in running order.
  std::vector<std::string> runs;
  std::atomic<int> texts{0};
  /// Name of the graph that fails, once.
  std::string fails;
};

/// A backend for the bundle; `journal` must outlive it.
[[nodiscard]] std::unique_ptr<rvos_edge::Backend> make_backend(Journal& journal);

}  // namespace tiny
