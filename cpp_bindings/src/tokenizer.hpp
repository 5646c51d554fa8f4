/// @file
/// WordPiece as BERT has it: what the `tokenizers` package makes of a tokenizer.json with BertNormalizer and
/// BertPreTokenizer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace rvos_edge {

/// A token that is found in the text itself, before it is split into words.
struct AddedToken {
  std::u32string content;
  std::int64_t id = 0;
  /// Takes the whitespace beside it along.
  bool lstrip = false;
  bool rstrip = false;
  /// Looked for after normalisation instead of before.
  bool normalized = false;
};

/// What tokenizer.json says.
struct TokenizerSpec {
  bool clean_text = false;
  bool chinese = false;
  bool strip_accents = false;
  bool lowercase = false;
  std::unordered_map<std::string, std::int64_t> vocabulary;
  std::int64_t unknown = 0;
  /// Of a piece that continues a word.
  std::string prefix = "##";
  std::size_t longest_word = 100;
  /// Around every text: [CLS] and [SEP].
  std::vector<std::int64_t> before;
  std::vector<std::int64_t> after;
  std::vector<AddedToken> added;
};

/// Parse tokenizer.json; std::runtime_error says in a few words what it lacks, or has that is not read here.
[[nodiscard]] TokenizerSpec parse_tokenizer(std::string_view json);

/// Turns a text into the numbers of its tokens; never changes, so any number of threads may use it.
class Tokenizer {
 public:
  explicit Tokenizer(TokenizerSpec spec);
  /// Read tokenizer.json; UserError where it is not a tokenizer.
  [[nodiscard]] static Tokenizer from_file(const std::filesystem::path& path);

  /// Ids of a text of valid Unicode, [CLS] and [SEP] included; never cut, never padded.
  [[nodiscard]] std::vector<std::int64_t> encode(std::u32string_view text) const;

 private:
  void plain(std::u32string_view text, std::vector<std::int64_t>& ids) const;
  void split(std::u32string_view text, std::vector<std::int64_t>& ids) const;
  void word(std::u32string_view word, std::vector<std::int64_t>& ids) const;
  [[nodiscard]] std::u32string normalise(std::u32string_view text) const;

  TokenizerSpec spec_;
};

}  // namespace rvos_edge
