/// @file
/// UTF-8, and the characters of an English query as BERT's normalizer treats them.
///
/// Queries are English: ASCII and typographic punctuation (U+2010 to U+2027). Other characters are refused.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace rvos_edge {

/// UTF-8 to code points. A byte that is not part of valid UTF-8 becomes U+FFFD.
[[nodiscard]] std::u32string decode_utf8(std::string_view bytes);
/// Append the UTF-8 encoding of a code point.
void append_utf8(std::string& bytes, char32_t code);
/// Code points to UTF-8.
[[nodiscard]] std::string encode_utf8(std::u32string_view text);

/// Words of a text, split at whitespace as Python's `str.split()` splits it.
[[nodiscard]] std::vector<std::u32string_view> split_words(std::u32string_view text);

/// True for the characters that a query may contain.
[[nodiscard]] bool is_readable(char32_t code) noexcept;
/// True for whitespace.
[[nodiscard]] bool is_whitespace(char32_t code) noexcept;
/// True for control characters, which BERT's normalizer removes.
[[nodiscard]] bool is_control(char32_t code) noexcept;
/// True for punctuation, which BERT's pre-tokenizer makes a token of its own.
[[nodiscard]] bool is_punctuation(char32_t code) noexcept;

}  // namespace rvos_edge
