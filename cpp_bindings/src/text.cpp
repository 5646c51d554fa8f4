#include "text.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <system_error>

#include "half.hpp"
#include "names.hpp"
#include "npz.hpp"
#include "rvos_edge/error.hpp"
#include "rvos_edge/segmenter.hpp"
#include "sha256.hpp"
#include "unicode.hpp"

namespace rvos_edge {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t shown_characters = 40;
constexpr std::size_t longest_word = 100;

[[nodiscard]] UserError bad(const std::string& sentence) {
  return {ErrorCode::bad_query, sentence};
}

std::u32string shorten(std::u32string_view query) {
  std::u32string shown(query);
  if (shown.size() > shown_characters) {
    shown.resize(shown_characters - 3);
    shown += U"...";
  }
  return shown;
}

std::string check_query(const std::string& query, std::size_t number) {
  const std::u32string text = decode_utf8(query);
  const auto words = split_words(text);
  if (words.empty()) {
    throw bad("query " + std::to_string(number) + " is empty; describe an object, such as 'the dog on the left'.");
  }
  std::u32string normalised;
  std::size_t longest = 0;
  for (const std::u32string_view word : words) {
    normalised.append(normalised.empty() ? U"" : U" ").append(word);
    longest = std::max(longest, word.size());
  }
  // Counting tokens is not enough: an endless word is a single unknown token.
  if (longest > longest_word) {
    throw bad("query '" + encode_utf8(shorten(normalised)) + "' has a word of " + std::to_string(longest) +
              " characters and at most " + std::to_string(longest_word) + " are read; shorten it.");
  }
  if (!is_valid(normalised)) {
    throw bad("query " + ascii_repr(shorten(normalised)) + " is not valid Unicode; type it anew.");
  }
  return encode_utf8(normalised);
}

bool is_finite(const HostTensor& tensor) {
  const std::size_t elements = count(tensor.shape);
  for (std::size_t i = 0; i < elements; ++i) {
    float value = 0;
    if (tensor.dtype == DType::float32) {
      std::memcpy(&value, tensor.data.data() + i * sizeof value, sizeof value);
    } else if (tensor.dtype == DType::float16) {
      std::uint16_t half = 0;
      std::memcpy(&half, tensor.data.data() + i * sizeof half, sizeof half);
      value = half_to_float(half);
    }
    if (!std::isfinite(value)) {
      return false;
    }
  }
  return true;
}

HostTensor row_of(const std::string& name, const std::vector<std::int64_t>& ids) {
  HostTensor tensor{name, DType::int64, {1, static_cast<std::int64_t>(ids.size())}, {}};
  tensor.data.resize(ids.size() * sizeof(std::int64_t));
  std::memcpy(tensor.data.data(), ids.data(), tensor.data.size());
  return tensor;
}

const char* environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody here sets one
  return value != nullptr && *value != '\0' ? value : nullptr;
}

}  // namespace

std::optional<fs::path> default_cache_dir() {
  if (const char* configured = environment("RVOS_EDGE_CACHE")) {
    return fs::path(configured);
  }
#ifdef _WIN32
  if (const char* local = environment("LOCALAPPDATA")) {
    return fs::path(local) / "rvos-edge";
  }
  return std::nullopt;
#else
  const char* home = environment("HOME");
#ifdef __APPLE__
  const char* base = nullptr;
  const char* below = "Library/Caches";
#else
  const char* base = environment("XDG_CACHE_HOME");
  const char* below = ".cache";
#endif
  if (base == nullptr && home == nullptr) {
    return std::nullopt;
  }
  return (base != nullptr ? fs::path(base) : fs::path(home) / below) / "rvos-edge";
#endif
}

std::vector<std::string> check_queries(const std::vector<std::string>& queries) {
  if (queries.empty()) {
    throw bad("there is no query; give at least one, such as 'the dog on the left'.");
  }
  std::vector<std::string> normalised;
  normalised.reserve(queries.size());
  for (const std::string& query : queries) {
    normalised.push_back(check_query(query, normalised.size() + 1));
  }
  return normalised;
}

DiskCache::DiskCache(fs::path folder, std::string fingerprint, std::size_t entries)
    : folder_(std::move(folder)), fingerprint_(std::move(fingerprint)), entries_(entries) {}

fs::path DiskCache::path(const std::string& query) const {
  return folder_ / (sha256_of(fingerprint_ + query) + ".npz");
}

std::optional<std::vector<HostTensor>> DiskCache::load(const std::string& query) const {
  std::ifstream file(path(query), std::ios::binary);
  if (!file) {
    return std::nullopt;
  }
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return read_npz(bytes);
}

void DiskCache::store(const std::string& query, const std::vector<HostTensor>& vectors) const {
  std::error_code failed;
  fs::create_directories(folder_, failed);
  if (failed) {
    return;
  }
  const fs::path whole = path(query);
  fs::path temporary = whole;
  // Other processes fill the same cache: everyone has a name of his own, and renames it when the file is whole.
  temporary += "." + std::to_string(std::random_device{}()) + ".tmp";
  {
    std::ofstream file(temporary, std::ios::binary);
    const std::string bytes = write_npz(vectors);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    file.close();
    failed = file.fail() ? std::make_error_code(std::errc::io_error) : std::error_code();
  }
  if (!failed) {
    fs::rename(temporary, whole, failed);
  }
  if (failed) {
    fs::remove(temporary, failed);
    return;
  }
  prune();
}

void DiskCache::prune() const {
  std::error_code failed;
  std::vector<fs::path> files;
  for (fs::directory_iterator at(folder_, failed), end; !failed && at != end; at.increment(failed)) {
    if (at->path().extension() == ".npz") {
      files.push_back(at->path());
    }
  }
  if (files.size() <= entries_) {
    return;
  }
  std::vector<std::pair<fs::file_time_type, fs::path>> aged;
  for (fs::path& file : files) {
    const auto time = fs::last_write_time(file, failed);
    if (!failed) {
      aged.emplace_back(time, std::move(file));
    }
  }
  std::sort(aged.begin(), aged.end());
  aged.resize(std::min(aged.size(), std::max<std::size_t>(1, files.size() / 4)));
  for (const auto& [time, file] : aged) {
    fs::remove(file, failed);
  }
}

TextEncoder::TextEncoder(const Bundle& bundle, std::unique_ptr<HostGraph> graph,
                         const std::optional<fs::path>& cache_dir, Limits limits)
    : tokenizer_(Tokenizer::from_file(bundle.tokenizer_path())), graph_(std::move(graph)),
      inputs_(bundle.manifest().graph(text_graph).inputs), outputs_(bundle.manifest().graph(text_graph).outputs),
      max_tokens_(static_cast<std::size_t>(bundle.manifest().text.max_tokens)), memory_entries_(limits.memory_entries) {
  if (cache_dir) {
    disk_.emplace(*cache_dir, bundle.fingerprint(), limits.disk_entries);
  }
}

std::vector<HostTensor> TextEncoder::encode(const std::vector<std::string>& queries) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<HostTensor> stacked;
  for (const std::string& query : queries) {
    const Vectors& vectors = one(query);
    for (std::size_t i = 0; i < vectors.size(); ++i) {
      if (stacked.size() == i) {
        Shape shape = vectors[i].shape;
        shape.insert(shape.begin(), static_cast<std::int64_t>(queries.size()));
        stacked.push_back({vectors[i].name, vectors[i].dtype, std::move(shape), {}});
      }
      stacked[i].data.insert(stacked[i].data.end(), vectors[i].data.begin(), vectors[i].data.end());
    }
  }
  return stacked;
}

const TextEncoder::Vectors& TextEncoder::one(const std::string& query) {
  if (const auto known = memory_.find(query); known != memory_.end()) {
    recent_.splice(recent_.end(), recent_, known->second);
    return known->second->second;
  }
  auto vectors = disk_ ? disk_->load(query) : std::nullopt;
  if (!vectors || !fits(*vectors)) {
    vectors = run(query);
    if (disk_) {
      disk_->store(query, *vectors);
    }
  }
  recent_.emplace_back(query, std::move(*vectors));
  memory_[query] = std::prev(recent_.end());
  // Never the one just made, which is handed out.
  while (recent_.size() > std::max<std::size_t>(memory_entries_, 1)) {
    memory_.erase(recent_.front().first);
    recent_.pop_front();
  }
  return recent_.back().second;
}

bool TextEncoder::fits(const Vectors& vectors) const {
  return std::equal(vectors.begin(), vectors.end(), outputs_.begin(), outputs_.end(),
                    [](const HostTensor& vector, const TensorSpec& spec) {
                      Shape wanted;
                      for (std::size_t i = 1; i < spec.shape.size(); ++i) {
                        wanted.push_back(spec.shape[i].extent);
                      }
                      return vector.name == spec.name && vector.dtype == spec.dtype && vector.shape == wanted &&
                             is_finite(vector);
                    });
}

TextEncoder::Vectors TextEncoder::run(const std::string& query) {
  const std::u32string text = decode_utf8(query);
  const std::vector<std::int64_t> ids = tokenizer_.encode(text);
  if (ids.size() > max_tokens_) {
    throw bad("query '" + encode_utf8(shorten(text)) + "' has " + std::to_string(ids.size()) +
              " tokens and this bundle takes at most " + std::to_string(max_tokens_) + "; shorten it.");
  }
  std::vector<HostTensor> inputs;
  for (const TensorSpec& spec : inputs_) {
    inputs.push_back(row_of(spec.name, spec.name == ids_input ? ids : std::vector<std::int64_t>(ids.size(), 1)));
  }
  Vectors vectors = graph_->run(inputs);
  for (HostTensor& vector : vectors) {
    // [1,c] -> [c]
    if (!vector.shape.empty()) {
      vector.shape.erase(vector.shape.begin());
    }
  }
  return vectors;
}

}  // namespace rvos_edge
