/// @file
/// Queries to language vectors, each query encoded once.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "rvos_edge/engine.hpp"
#include "tokenizer.hpp"

namespace rvos_edge {

/// Normalise queries: strip each and collapse its inner whitespace.
/// @throws UserError  There is no query, or one is empty, has a word of more than 100 characters or a character that is
///                    not English text.
[[nodiscard]] std::vector<std::string> check_queries(const std::vector<std::string>& queries);

/// The text graph behind a cache of the most recently used queries. Safe to share between threads.
class TextEncoder {
 public:
  /// @param entries  Queries kept in memory.
  TextEncoder(const Bundle& bundle, std::unique_ptr<HostGraph> graph, std::size_t entries = 1024);

  /// Check a number of queries.
  /// @throws UserError  The bundle takes fewer.
  void check_number(std::size_t queries) const;

  /// Normalise queries and check their number and their tokens, without encoding them.
  /// @throws UserError  As `check_queries`, `check_number` and `encode`.
  [[nodiscard]] std::vector<std::string> check(const std::vector<std::string>& queries) const;

  /// Encode normalised queries, at least one.
  /// @return  lang1, lang2, ..., each [Q,c_i], in the order of the queries.
  /// @throws UserError  A query has more tokens than the bundle takes.
  [[nodiscard]] std::vector<HostTensor> encode(const std::vector<std::string>& queries);

 private:
  using Vectors = std::vector<HostTensor>;
  using Recent = std::list<std::pair<std::string, Vectors>>;

  const Vectors& one(const std::string& query, std::size_t number);
  [[nodiscard]] Vectors run(const std::string& query, std::size_t number);
  [[nodiscard]] std::vector<std::int64_t> tokens(const std::string& query, std::size_t number) const;

  Tokenizer tokenizer_;
  std::unique_ptr<HostGraph> graph_;
  std::vector<TensorSpec> inputs_;
  std::size_t max_tokens_;
  std::size_t max_queries_;
  std::size_t entries_;
  std::mutex mutex_;
  /// Least recently used first.
  Recent recent_;
  std::unordered_map<std::string, Recent::iterator> memory_;
};

}  // namespace rvos_edge
