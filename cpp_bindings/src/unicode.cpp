#include "unicode.hpp"

#include <algorithm>
#include <cstdint>

namespace rvos_edge {
namespace {

constexpr char32_t replacement = 0xFFFD;

bool is_between(char32_t code, char32_t first, char32_t last) noexcept {
  return code >= first && code <= last;
}

/// Decode the sequence that starts at `at`; returns its length in bytes, 0 if it is not valid.
std::size_t decode_one(std::string_view bytes, std::size_t at, char32_t& code) noexcept {
  const auto byte = [&](std::size_t i) -> std::uint32_t {
    return at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0U;
  };
  const std::uint32_t lead = byte(0);
  const std::size_t length = lead < 0x80                    ? 1
                             : is_between(lead, 0xC2, 0xDF) ? 2
                             : is_between(lead, 0xE0, 0xEF) ? 3
                             : is_between(lead, 0xF0, 0xF4) ? 4
                                                            : 0;
  constexpr std::uint32_t payload[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  constexpr std::uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  code = lead & payload[length];
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) {
      return 0;
    }
    code = code << 6 | (byte(i) & 0x3FU);
  }
  return code >= smallest[length] && code <= 0x10FFFF && !is_between(code, 0xD800, 0xDFFF) ? length : 0;
}

}  // namespace

std::u32string decode_utf8(std::string_view bytes) {
  std::u32string text;
  text.reserve(bytes.size());
  for (std::size_t at = 0; at < bytes.size();) {
    char32_t code = 0;
    const std::size_t length = decode_one(bytes, at, code);
    text += length == 0 ? replacement : code;
    at += std::max<std::size_t>(length, 1);
  }
  return text;
}

void append_utf8(std::string& bytes, char32_t code) {
  const auto add = [&bytes](std::uint32_t byte) { bytes += static_cast<char>(byte); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xC0U | code >> 6);
    add(0x80U | (code & 0x3FU));
  } else if (code < 0x10000) {
    add(0xE0U | code >> 12);
    add(0x80U | (code >> 6 & 0x3FU));
    add(0x80U | (code & 0x3FU));
  } else {
    add(0xF0U | code >> 18);
    add(0x80U | (code >> 12 & 0x3FU));
    add(0x80U | (code >> 6 & 0x3FU));
    add(0x80U | (code & 0x3FU));
  }
}

std::string encode_utf8(std::u32string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (const char32_t code : text) {
    append_utf8(bytes, code);
  }
  return bytes;
}

std::vector<std::u32string_view> split_words(std::u32string_view text) {
  std::vector<std::u32string_view> words;
  std::size_t start = 0;
  for (std::size_t at = 0; at <= text.size(); ++at) {
    // `str.split()` also splits at the four separators U+001C to U+001F.
    if (at == text.size() || is_whitespace(text[at]) || is_between(text[at], 0x1C, 0x1F)) {
      if (at > start) {
        words.push_back(text.substr(start, at - start));
      }
      start = at + 1;
    }
  }
  return words;
}

bool is_readable(char32_t code) noexcept {
  return code < 0x80 || is_between(code, 0x2010, 0x2027);
}

bool is_whitespace(char32_t code) noexcept {
  return is_between(code, 0x09, 0x0D) || code == ' ' || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         is_between(code, 0x2000, 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
         code == 0x3000;
}

bool is_control(char32_t code) noexcept {
  const bool kept = code == '\t' || code == '\n' || code == '\r';
  return (code < 0x20 && !kept) || code == 0x7F;
}

bool is_punctuation(char32_t code) noexcept {
  return is_between(code, 0x21, 0x2F) || is_between(code, 0x3A, 0x40) || is_between(code, 0x5B, 0x60) ||
         is_between(code, 0x7B, 0x7E) || is_between(code, 0x2010, 0x2027);
}

}  // namespace rvos_edge
