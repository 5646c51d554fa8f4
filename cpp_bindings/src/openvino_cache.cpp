#include "openvino_cache.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <utility>
#include <vector>

#include "sha256.hpp"

namespace rvos_edge {
namespace {

namespace fs = std::filesystem;

/// Number of kept graphs, enough for four bundles.
constexpr std::size_t most = 40;
/// Hexadecimal digits of a sha256.
constexpr std::size_t digest_size = 64;

std::string kept_name(ov::Core& core, const std::string& sha256, const ov::AnyMap& options) {
  std::string facts = sha256;
  for (const auto& [key, value] : options) {
    // Threads are no property of what is kept, and are given again when it is read.
    if (key != ov::inference_num_threads.name() && key != ov::hint::enable_cpu_pinning.name()) {
      facts += '\n' + key + '=' + value.as<std::string>();
    }
  }
  facts += '\n' + core.get_property("CPU", ov::device::full_name);
  facts += '\n' + std::string(core.get_versions("CPU").at("CPU").buildNumber);
  return sha256_of(facts);
}

/// Remove the graphs that were used longest ago.
void prune(const fs::path& folder) {
  std::vector<std::pair<fs::file_time_type, fs::path>> files;
  std::error_code failed;
  for (fs::directory_iterator entry(folder, failed), end; !failed && entry != end; entry.increment(failed)) {
    std::error_code gone;
    files.emplace_back(fs::last_write_time(entry->path(), gone), entry->path());
  }
  std::sort(files.begin(), files.end());
  for (std::size_t i = 0; i + most < files.size(); ++i) {
    fs::remove(files[i].second, failed);
  }
}

}  // namespace

fs::path memory_folder() {
  // NOLINTBEGIN(concurrency-mt-unsafe)
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  // NOLINTEND(concurrency-mt-unsafe)
  if (cache != nullptr && *cache != '\0') {
    return fs::path(cache) / "rvos-edge";
  }
  return home == nullptr ? fs::path() : fs::path(home) / ".cache" / "rvos-edge";
}

std::string read_kept(const fs::path& file) {
  const std::ifstream stored(file, std::ios::binary);
  std::ostringstream content;
  content << stored.rdbuf();
  return content.str();
}

void keep(const fs::path& file, const std::string& content) {
  std::error_code ignored;
  fs::create_directories(file.parent_path(), ignored);
  const fs::path temporary = file.string() + "." + std::to_string(std::random_device{}());
  std::ofstream stream(temporary, std::ios::binary);
  stream << content;
  stream.close();
  if (stream) {
    fs::rename(temporary, file, ignored);
  }
  fs::remove(temporary, ignored);
}

ov::CompiledModel compile_once(ov::Core& core, const fs::path& path, const std::string& sha256,
                               const ov::AnyMap& options) {
  const fs::path memory = memory_folder();
  if (memory.empty()) {
    return core.compile_model(path.string(), "CPU", options);
  }
  const fs::path file = memory / "openvino" / kept_name(core, sha256, options);
  std::string kept = read_kept(file);
  if (kept.size() > digest_size) {
    const std::string digest = kept.substr(kept.size() - digest_size);
    kept.resize(kept.size() - digest_size);
    if (sha256_of(kept) == digest) {
      std::error_code ignored;
      fs::last_write_time(file, fs::file_time_type::clock::now(), ignored);
      try {
        std::istringstream stream(kept);
        return core.import_model(stream, "CPU", options);
      } catch (const std::runtime_error&) {  // written by a build of OpenVINO that calls itself the same
      }
    }
  }
  ov::CompiledModel compiled = core.compile_model(path.string(), "CPU", options);
  try {
    std::ostringstream exported;
    compiled.export_model(exported);
    const std::string blob = exported.str();
    keep(file, blob + sha256_of(blob));
    prune(file.parent_path());
  } catch (const std::runtime_error&) {  // then the next process compiles it again
  }
  return compiled;
}

}  // namespace rvos_edge
