/// @file
/// BERT's WordPiece tokenizer, read from a tokenizer.json with BertNormalizer and BertPreTokenizer.
///
/// Token ids are those of the `tokenizers` package for the characters that `is_readable` accepts; special tokens that
/// are written out, such as "[MASK]", are plain text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace rvos_edge {

/// Contents of tokenizer.json.
struct TokenizerSpec {
  bool clean_text = false;
  bool lowercase = false;
  std::unordered_map<std::string, std::int64_t> vocabulary;
  std::int64_t unknown = 0;
  /// Prefix of a piece that continues a word.
  std::string prefix = "##";
  std::size_t longest_word = 100;
  /// Ids before and after every text: [CLS] and [SEP].
  std::vector<std::int64_t> before;
  std::vector<std::int64_t> after;
};

/// Parse tokenizer.json.
/// @throws std::runtime_error  It is not a tokenizer, or uses a component that is not supported.
[[nodiscard]] TokenizerSpec parse_tokenizer(std::string_view json);

/// Converts text to token ids. Immutable, so it may be used by several threads.
class Tokenizer {
 public:
  explicit Tokenizer(TokenizerSpec spec);
  /// Read tokenizer.json.
  /// @throws UserError  The file is not a supported tokenizer.
  [[nodiscard]] static Tokenizer from_file(const std::filesystem::path& path);

  /// Token ids of a text, including [CLS] and [SEP], neither truncated nor padded.
  [[nodiscard]] std::vector<std::int64_t> encode(std::u32string_view text) const;

 private:
  void split(std::u32string_view text, std::vector<std::int64_t>& ids) const;
  void word(std::u32string_view word, std::vector<std::int64_t>& ids) const;
  [[nodiscard]] std::u32string normalise(std::u32string_view text) const;

  TokenizerSpec spec_;
};

}  // namespace rvos_edge
