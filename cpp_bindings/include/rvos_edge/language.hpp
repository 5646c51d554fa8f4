/// @file
/// Doubts about a query that the network cannot understand.
#pragma once

#include <string>

#include "rvos_edge/api.h"

namespace rvos_edge {

/// Reason why a query is unlikely to be understood, in one sentence; empty where there is none, and for taught queries.
///
/// A rule of function words tells other languages, "le chien rouge": the network would answer with any mask. Characters
/// that are not English are not doubted but refused, by `Segmenter::set_queries`.
[[nodiscard]] RVOS_EDGE_API std::string query_doubt(const std::string& query);

}  // namespace rvos_edge
