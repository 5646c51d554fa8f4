#include "unicode.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace rvos_edge {
namespace {

struct Range {
  char32_t first;
  char32_t last;
};
/// Characters of one combining class.
struct Ordered {
  char32_t first;
  char32_t last;
  unsigned char order;
};
/// Capitals `step` apart, whose small letters lie `distance` further on.
struct Run {
  char32_t first;
  char32_t last;
  std::uint32_t step;
  std::int32_t distance;
};
/// Characters that lose their marks and become `base`.
struct Pair {
  char32_t first;
  char32_t last;
  char32_t base;
};
/// A character that becomes several, or none; 0 ends them.
struct Bases {
  char32_t first;
  char32_t bases[4];
};

// NOLINTNEXTLINE: tables
#include "unicode_tables.inc"

/// The entry of a sorted table whose range holds a code point, or null.
template <class Entry, std::size_t N>
const Entry* find(const Entry (&table)[N], char32_t code) noexcept {
  const auto* after = std::upper_bound(std::begin(table), std::end(table), code,
                                       [](char32_t value, const Entry& entry) { return value < entry.first; });
  if (after == std::begin(table)) {
    return nullptr;
  }
  const Entry* entry = after - 1;
  if constexpr (std::is_same_v<Entry, Bases>) {
    return entry->first == code ? entry : nullptr;
  } else {
    return code <= entry->last ? entry : nullptr;
  }
}

constexpr char32_t hangul_first = 0xAC00;
constexpr char32_t hangul_last = 0xD7A3;

/// Syllables of Hangul decompose by arithmetic, none of their parts is a mark.
void append_hangul(std::u32string& text, char32_t code) {
  const char32_t index = code - hangul_first;
  text += char32_t{0x1100 + index / 588};
  text += char32_t{0x1161 + index % 588 / 28};
  if (index % 28 != 0) {
    text += char32_t{0x11A7 + index % 28};
  }
}

bool is_surrogate(char32_t code) noexcept {
  return code >= 0xD800 && code <= 0xDFFF;
}

/// What `str.isspace` knows beyond the whitespace of the Unicode standard.
bool is_python_space(char32_t code) noexcept {
  return (code >= 0x1C && code <= 0x1F) || is_whitespace(code);
}

/// Decodes one sequence at `at`; 0 bytes where there is none.
std::size_t decode_one(std::string_view bytes, std::size_t at, char32_t& code) noexcept {
  const auto byte = [&](std::size_t i) -> std::uint32_t {
    return at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0U;
  };
  const std::uint32_t lead = byte(0);
  const std::size_t length = lead < 0x80   ? 1
                             : lead < 0xC2 ? 0
                             : lead < 0xE0 ? 2
                             : lead < 0xF0 ? 3
                             : lead < 0xF5 ? 4
                                           : 0;
  if (length == 0) {
    return 0;
  }
  static constexpr std::uint32_t payload[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  static constexpr std::uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  code = lead & payload[length];
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) {
      return 0;
    }
    code = code << 6 | (byte(i) & 0x3FU);
  }
  return code >= smallest[length] && code <= 0x10FFFF ? length : 0;
}

}  // namespace

std::u32string decode_utf8(std::string_view bytes) {
  std::u32string text;
  text.reserve(bytes.size());
  for (std::size_t at = 0; at < bytes.size();) {
    char32_t code = 0;
    const std::size_t length = decode_one(bytes, at, code);
    if (length == 0) {
      code = 0xDC00U + static_cast<unsigned char>(bytes[at]);
    }
    text += code;
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

bool is_valid(std::u32string_view text) noexcept {
  return std::none_of(text.begin(), text.end(), is_surrogate);
}

std::vector<std::u32string_view> split_words(std::u32string_view text) {
  std::vector<std::u32string_view> words;
  std::size_t start = 0;
  for (std::size_t at = 0; at <= text.size(); ++at) {
    if (at == text.size() || is_python_space(text[at])) {
      if (at > start) {
        words.push_back(text.substr(start, at - start));
      }
      start = at + 1;
    }
  }
  return words;
}

std::string ascii_repr(std::u32string_view text) {
  const bool has_single = text.find(U'\'') != std::u32string_view::npos;
  const bool has_double = text.find(U'"') != std::u32string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string repr(1, quote);
  const auto hex = [&repr](char kind, int digits, char32_t code) {
    repr += '\\';
    repr += kind;
    for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) {
      repr += "0123456789abcdef"[code >> shift & 15U];
    }
  };
  for (const char32_t code : text) {
    if (code == static_cast<unsigned char>(quote) || code == U'\\') {
      repr += '\\';
      repr += static_cast<char>(code);
    } else if (code == U'\t' || code == U'\n' || code == U'\r') {
      repr += code == U'\t' ? "\\t" : code == U'\n' ? "\\n" : "\\r";
    } else if (code >= 0x20 && code < 0x7F) {
      repr += static_cast<char>(code);
    } else if (code <= 0xFF) {
      hex('x', 2, code);
    } else if (code <= 0xFFFF) {
      hex('u', 4, code);
    } else {
      hex('U', 8, code);
    }
  }
  return repr + quote;
}

bool is_dropped(char32_t code) noexcept {
  return find(dropped, code) != nullptr;
}
bool is_whitespace(char32_t code) noexcept {
  return find(whitespace, code) != nullptr;
}
bool is_punctuation(char32_t code) noexcept {
  return find(punctuation, code) != nullptr;
}
bool is_chinese(char32_t code) noexcept {
  return find(chinese, code) != nullptr;
}

void append_lower(std::u32string& text, char32_t code) {
  if (code == 0x130) {
    text += U'i';
    text += char32_t{0x307};
    return;
  }
  const Run* run = find(lower, code);
  const bool capital = run != nullptr && (code - run->first) % run->step == 0;
  text += capital ? static_cast<char32_t>(static_cast<std::int32_t>(code) + run->distance) : code;
}

std::u32string strip_accents(std::u32string_view text) {
  std::u32string plain;
  plain.reserve(text.size());
  // Start of the characters that canonical ordering may exchange: everything since the last one of class 0.
  std::size_t movable = 0;
  const auto order = [](char32_t code) -> unsigned {
    const Ordered* entry = find(combining, code);
    return entry == nullptr ? 0U : entry->order;
  };
  const auto settle = [&] {
    std::stable_sort(plain.begin() + static_cast<std::ptrdiff_t>(movable), plain.end(),
                     [&order](char32_t a, char32_t b) { return order(a) < order(b); });
    movable = plain.size();
  };
  const auto add = [&](char32_t code) {
    const bool starts = order(code) == 0;
    if (starts) {
      settle();
    }
    if (find(marks, code) == nullptr) {
      plain += code;
      movable += starts ? 1 : 0;
    }
  };
  for (const char32_t code : text) {
    if (code >= hangul_first && code <= hangul_last) {
      settle();
      append_hangul(plain, code);
      movable = plain.size();
    } else if (const Pair* pair = find(base, code)) {
      add(pair->base);
    } else if (const Bases* several = find(bases, code)) {
      for (const char32_t part : several->bases) {
        if (part != 0) {
          add(part);
        }
      }
    } else {
      add(code);
    }
  }
  settle();
  return plain;
}

}  // namespace rvos_edge
