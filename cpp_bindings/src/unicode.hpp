/// @file
/// Code points as the `tokenizers` package and Python see them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace rvos_edge {

/// UTF-8 to code points. A byte that is not UTF-8 becomes the lone surrogate U+DC80 + byte, as in Python's
/// "surrogateescape"; an encoded surrogate becomes that surrogate. Neither is valid Unicode, see `is_valid`.
[[nodiscard]] std::u32string decode_utf8(std::string_view bytes);
/// Code points to UTF-8; a lone surrogate becomes three bytes.
[[nodiscard]] std::string encode_utf8(std::u32string_view text);
void append_utf8(std::string& bytes, char32_t code);
/// Whether there is no surrogate in it.
[[nodiscard]] bool is_valid(std::u32string_view text) noexcept;

/// The words of a text: Python's `str.split()`.
[[nodiscard]] std::vector<std::u32string_view> split_words(std::u32string_view text);
/// Python's `ascii()`: quoted, with escapes for all that is not printable ASCII.
[[nodiscard]] std::string ascii_repr(std::u32string_view text);

/// What BertNormalizer and BertPreTokenizer ask of a character.
[[nodiscard]] bool is_dropped(char32_t code) noexcept;
[[nodiscard]] bool is_whitespace(char32_t code) noexcept;
[[nodiscard]] bool is_punctuation(char32_t code) noexcept;
[[nodiscard]] bool is_chinese(char32_t code) noexcept;
/// Append the lower case of a character: one, for U+0130 two.
void append_lower(std::u32string& text, char32_t code);
/// Canonical decomposition of a text without its non-spacing marks.
[[nodiscard]] std::u32string strip_accents(std::u32string_view text);

}  // namespace rvos_edge
