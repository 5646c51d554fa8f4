#include "tokenizer.hpp"

#include <algorithm>
#include <utility>

#include "unicode.hpp"

namespace rvos_edge {
namespace {

/// The longest added token that begins at `at`, or null.
const AddedToken* match(const std::vector<AddedToken>& added, bool normalized, std::u32string_view text,
                        std::size_t at) noexcept {
  const AddedToken* longest = nullptr;
  for (const AddedToken& token : added) {
    if (token.normalized == normalized && text.substr(at, token.content.size()) == token.content &&
        (longest == nullptr || token.content.size() > longest->content.size())) {
      longest = &token;
    }
  }
  return longest;
}

/// Call `found` with each added token and `between` with the text around them, in order.
template <class Between, class Found>
void extract(const std::vector<AddedToken>& added, bool normalized, std::u32string_view text, Between between,
             Found found) {
  std::size_t start = 0;
  for (std::size_t at = 0; at < text.size();) {
    const AddedToken* token = match(added, normalized, text, at);
    if (token == nullptr) {
      ++at;
      continue;
    }
    std::size_t first = at;
    std::size_t last = at + token->content.size();
    at = last;
    while (token->lstrip && first > start && is_whitespace(text[first - 1])) {
      --first;
    }
    while (token->rstrip && last < text.size() && is_whitespace(text[last])) {
      ++last;
    }
    if (first > start) {
      between(text.substr(start, first - start));
    }
    found(*token);
    start = last;
    at = std::max(at, last);
  }
  if (start < text.size()) {
    between(text.substr(start));
  }
}

}  // namespace

Tokenizer::Tokenizer(TokenizerSpec spec) : spec_(std::move(spec)) {
  // An empty token would match at every position.
  auto& added = spec_.added;
  added.erase(std::remove_if(added.begin(), added.end(), [](const AddedToken& t) { return t.content.empty(); }),
              added.end());
}

std::vector<std::int64_t> Tokenizer::encode(std::u32string_view text) const {
  std::vector<std::int64_t> ids = spec_.before;
  extract(
      spec_.added, false, text, [&](std::u32string_view part) { plain(part, ids); },
      [&](const AddedToken& token) { ids.push_back(token.id); });
  ids.insert(ids.end(), spec_.after.begin(), spec_.after.end());
  return ids;
}

void Tokenizer::plain(std::u32string_view text, std::vector<std::int64_t>& ids) const {
  const std::u32string normalised = normalise(text);
  extract(
      spec_.added, true, normalised, [&](std::u32string_view part) { split(part, ids); },
      [&](const AddedToken& token) { ids.push_back(token.id); });
}

std::u32string Tokenizer::normalise(std::u32string_view text) const {
  std::u32string normalised;
  normalised.reserve(text.size());
  for (char32_t code : text) {
    if ((spec_.clean_text && is_control(code)) || (spec_.strip_accents && is_accent(code))) {
      continue;
    }
    if (spec_.clean_text && is_whitespace(code)) {
      code = U' ';
    }
    if (spec_.strip_accents) {
      code = strip_accent(code);
    }
    normalised += spec_.lowercase ? to_lower(code) : code;
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
