/// @file
/// Queries to language vectors: encoded once, then kept in memory and on disk.
#pragma once

#include <filesystem>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "rvos_edge/engine.hpp"
#include "tokenizer.hpp"

namespace rvos_edge {

/// Normalise queries: strip each and collapse its inner whitespace; UserError where there is none, or one is empty,
/// endless or not valid Unicode.
[[nodiscard]] std::vector<std::string> check_queries(const std::vector<std::string>& queries);

/// One small file per query. Whatever goes wrong with it is a miss: a cache is never the only copy.
class DiskCache {
 public:
  /// @param entries  Files kept; beyond it the oldest quarter is removed.
  DiskCache(std::filesystem::path folder, std::string fingerprint, std::size_t entries);
  [[nodiscard]] std::optional<std::vector<HostTensor>> load(const std::string& query) const;
  void store(const std::string& query, const std::vector<HostTensor>& vectors) const;

 private:
  [[nodiscard]] std::filesystem::path path(const std::string& query) const;
  void prune() const;

  std::filesystem::path folder_;
  std::string fingerprint_;
  std::size_t entries_;
};

/// The text graph behind two caches; safe to share between threads.
class TextEncoder {
 public:
  /// How much is kept.
  struct Limits {
    std::size_t memory_entries = 1024;
    std::size_t disk_entries = 8192;
  };

  /// @param cache_dir  Folder of the disk cache, made when needed; none for no disk cache.
  TextEncoder(const Bundle& bundle, std::unique_ptr<HostGraph> graph,
              const std::optional<std::filesystem::path>& cache_dir, Limits limits);

  /// Encode normalised queries, at least one.
  /// @return  lang1, lang2, ..., each [Q,c_i], in the order of the queries.
  /// @throws UserError  One is too long.
  [[nodiscard]] std::vector<HostTensor> encode(const std::vector<std::string>& queries);

 private:
  using Vectors = std::vector<HostTensor>;
  using Recent = std::list<std::pair<std::string, Vectors>>;

  const Vectors& one(const std::string& query);
  [[nodiscard]] Vectors run(const std::string& query);
  [[nodiscard]] bool fits(const Vectors& vectors) const;

  Tokenizer tokenizer_;
  std::unique_ptr<HostGraph> graph_;
  std::vector<TensorSpec> inputs_;
  std::vector<TensorSpec> outputs_;
  std::size_t max_tokens_;
  std::size_t memory_entries_;
  std::optional<DiskCache> disk_;
  std::mutex mutex_;
  /// Least recently used first.
  Recent recent_;
  std::unordered_map<std::string, Recent::iterator> memory_;
};

}  // namespace rvos_edge
