#include "tokenizer.hpp"

#include <utility>

#include "unicode.hpp"

namespace rvos_edge {
Tokenizer::Tokenizer(TokenizerSpec spec) : spec_(std::move(spec)) {}

std::vector<std::int64_t> Tokenizer::encode(std::u32string_view text) const {
  std::vector<std::int64_t> ids = spec_.before;
  split(normalise(text), ids);
  ids.insert(ids.end(), spec_.after.begin(), spec_.after.end());
  return ids;
}

std::u32string Tokenizer::normalise(std::u32string_view text) const {
  std::u32string normalised;
  normalised.reserve(text.size());
  for (const char32_t code : text) {
    if (spec_.clean_text && is_control(code)) {
      continue;
    }
    const bool capital = spec_.lowercase && code >= 'A' && code <= 'Z';
    normalised += spec_.clean_text && is_whitespace(code) ? U' ' : capital ? code + 0x20 : code;
  }
  return normalised;
}

void Tokenizer::split(std::u32string_view text, std::vector<std::int64_t>& ids) const {
  std::size_t start = 0;
  for (std::size_t at = 0; at <= text.size(); ++at) {
    const bool end = at == text.size();
    const bool alone = !end && is_punctuation(text[at]);
    if (!end && !alone && !is_whitespace(text[at])) {
      continue;
    }
    if (at > start) {
      word(text.substr(start, at - start), ids);
    }
    if (alone) {
      word(text.substr(at, 1), ids);
    }
    start = at + 1;
  }
}

void Tokenizer::word(std::u32string_view word, std::vector<std::int64_t>& ids) const {
  if (word.size() > spec_.longest_word) {
    ids.push_back(spec_.unknown);
    return;
  }
  const std::size_t known = ids.size();
  std::string piece;
  for (std::size_t start = 0; start < word.size();) {
    piece = start == 0 ? std::string() : spec_.prefix;
    // End of each character in `piece`: the piece is shortened by one character until the vocabulary has it.
    std::vector<std::size_t> ends;
    for (const char32_t code : word.substr(start)) {
      append_utf8(piece, code);
      ends.push_back(piece.size());
    }
    std::size_t taken = 0;
    for (; !ends.empty(); ends.pop_back()) {
      piece.resize(ends.back());
      if (const auto entry = spec_.vocabulary.find(piece); entry != spec_.vocabulary.end()) {
        ids.push_back(entry->second);
        taken = ends.size();
        break;
      }
    }
    if (taken == 0) {
      ids.resize(known);
      ids.push_back(spec_.unknown);
      return;
    }
    start += taken;
  }
}

}  // namespace rvos_edge
