/// @file
/// Taught queries: small files whose language vectors stand in place of a sentence's. rvos_edge/queries.py does the
/// same.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "rvos_edge/engine.hpp"
#include "teaching.hpp"

namespace rvos_edge {

/// Queries as `Segmenter::set_queries` takes them, read.
struct AskedQueries {
  /// Normalised, one per query; those of taught queries are what they began with.
  std::vector<std::string> sentences;
  /// What results call the queries: sentences, and the names of taught ones.
  std::vector<std::string> labels;
  /// Added to the logits of presence, one per query.
  std::vector<double> presence_shifts;
  /// lang1, lang2, ... of the taught ones, by their row.
  std::map<std::size_t, Vectors> taught;
};

/// Read queries: sentences, "@FILE", or the JSON of such a file.
/// @throws UserError  There is no query, a sentence cannot be read, or a file is missing, larger than 4096 bytes,
/// damaged
///                    or of another network.
[[nodiscard]] AskedQueries read_queries(const std::vector<std::string>& queries, const Bundle& bundle);

/// Write the vectors of taught queries over those of their sentences.
void put_taught(const AskedQueries& asked, std::vector<HostTensor>& vectors);

}  // namespace rvos_edge
