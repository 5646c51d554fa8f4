/// @file
/// Other wordings of a sentence; rvos_edge/wordings.py and nouns.py do the same.
#pragma once

#include <string>
#include <vector>

namespace rvos_edge {

/// A sentence, its noun alone, the sentence with a wider word, and "the moving object"; each once.
[[nodiscard]] std::vector<std::string> wordings(const std::string& sentence);

}  // namespace rvos_edge
