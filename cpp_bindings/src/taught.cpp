#include "taught.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string_view>

#include "json_value.hpp"
#include "manifest.hpp"
#include "names.hpp"
#include "rvos_edge/error.hpp"
#include "text.hpp"
#include "unicode.hpp"

namespace rvos_edge {
namespace {

constexpr std::int64_t query_format = 1;
constexpr std::size_t largest_file = 4096;
constexpr std::size_t longest_name = 100;
constexpr std::size_t shown_digits = 8;
constexpr const char* remedy = "; make it again with: rvos-edge teach";

[[nodiscard]] UserError bad(const std::string& sentence) {
  return {ErrorCode::bad_query, sentence};
}

/// Contents of a file of at most `largest_file` bytes.
std::string read_file(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) {
    throw UserError(ErrorCode::not_found, path_text(path) + " is not a file; make it with: rvos-edge teach");
  }
  std::ifstream file(path, std::ios::binary);
  std::string bytes(largest_file + 1, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<std::size_t>(file.gcount()));
  if (bytes.size() > largest_file) {
    throw bad(path_text(path) + " is larger than " + std::to_string(largest_file) +
              " bytes and no query; give a file of 'teach'.");
  }
  return bytes;
}

/// Base64 of little-endian float32.
std::vector<float> read_floats(const Value& value) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text = value.text();
  const std::size_t length = text.size();
  text.erase(std::find_if_not(text.rbegin(), text.rend(), [](char letter) { return letter == '='; }).base(),
             text.end());
  std::string bytes;
  std::uint32_t bits = 0;
  int held = 0;
  for (const char letter : text) {
    const std::size_t digit = digits.find(letter);
    if (digit == std::string_view::npos) {
      value.fail("is not base64");
    }
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes += static_cast<char>(bits >> held & 0xFFU);
    }
  }
  if (length % 4 != 0 || length - text.size() > 2 || bytes.size() % sizeof(float) != 0) {
    value.fail("is not base64 of float32");
  }
  std::vector<float> floats(bytes.size() / sizeof(float));
  std::copy_n(bytes.data(), bytes.size(), reinterpret_cast<char*>(floats.data()));
  if (!std::all_of(floats.begin(), floats.end(), [](float number) { return std::isfinite(number); })) {
    value.fail("holds numbers that are not finite");
  }
  return floats;
}

/// One taught query.
struct Taught {
  std::string name;
  std::string sentence;
  std::string network;
  double presence_shift = 0;
  Vectors vectors;
};

Taught read_document(const Json& document) {
  Object object(Value(document, ""));
  const Value version = object.need("format_version");
  if (version.integer() != query_format) {
    version.fail("is " + std::to_string(version.integer()) + " and this library reads " + std::to_string(query_format));
  }
  Taught taught;
  taught.name = object.need("name").text();
  if (decode_utf8(taught.name).size() > longest_name) {
    object.need("name").fail("is longer than " + std::to_string(longest_name) + " characters");
  }
  taught.sentence = object.need("sentence").text();
  taught.network = object.need("network").text();
  object.may("presence_shift", [&taught](const Value& shift) { taught.presence_shift = shift.number(); });
  object.need("vectors").members(
      [&taught](const std::string& name, const Value& vector) { taught.vectors[name] = read_floats(vector); });
  // For people.
  static_cast<void>(object.need("shots"));
  for (const char* unused : {"j", "sentence_j"}) {
    object.may(unused, [](const Value&) {});
  }
  object.done();
  return taught;
}

/// The taught query that a query names or is; none for a sentence.
std::optional<Taught> read_taught(const std::string& query) {
  const bool named = !query.empty() && query.front() == '@';
  if (!named && (query.empty() || query.front() != '{')) {
    return std::nullopt;
  }
  const std::string shown = named ? path_text(query.substr(1)) : "the taught query";
  try {
    return read_document(parse_json(named ? read_file(query.substr(1)) : query));
  } catch (const Invalid& invalid) {
    const std::string field = invalid.field.empty() ? "it " : "'" + invalid.field + "' ";
    throw bad(shown + " is not a taught query or is damaged: " + field + invalid.reason + remedy);
  }
}

void check_network(const Taught& taught, const std::string& label, const Bundle& bundle) {
  const std::vector<TensorSpec>& expected = bundle.manifest().graph(text_graph).outputs;
  const bool fits = std::all_of(taught.vectors.begin(), taught.vectors.end(), [&expected](const auto& vector) {
    return std::any_of(expected.begin(), expected.end(), [&vector](const TensorSpec& spec) {
      return spec.name == vector.first && spec.shape.back().extent == static_cast<std::int64_t>(vector.second.size());
    });
  });
  const std::string& identity = bundle.manifest().network;
  if (taught.network != identity || !fits) {
    const std::string theirs = encode_utf8(decode_utf8(taught.network).substr(0, shown_digits));
    throw bad("query '" + label + "' was taught to another network (" + theirs + ") than that of " +
              path_text(bundle.path()) + " (" + identity.substr(0, shown_digits) +
              "); teach it again with: rvos-edge teach, or use a bundle of its network.");
  }
}

}  // namespace

AskedQueries read_queries(const std::vector<std::string>& queries, const Bundle& bundle) {
  AskedQueries asked;
  std::vector<std::string> sentences = queries;
  std::vector<std::string> names(queries.size());
  for (std::size_t row = 0; row < queries.size(); ++row) {
    std::optional<Taught> taught = read_taught(queries[row]);
    asked.presence_shifts.push_back(taught ? taught->presence_shift : 0);
    if (taught) {
      names[row] = taught->name;
      sentences[row] = taught->sentence;
      check_network(*taught, names[row].empty() ? sentences[row] : names[row], bundle);
      asked.taught[row] = std::move(taught->vectors);
    }
  }
  asked.sentences = check_queries(sentences);
  for (std::size_t row = 0; row < names.size(); ++row) {
    asked.labels.push_back(names[row].empty() ? asked.sentences[row] : names[row]);
  }
  return asked;
}

void put_taught(const AskedQueries& asked, std::vector<HostTensor>& vectors) {
  for (const auto& [row, taught] : asked.taught) {
    put_row(vectors, row, taught);
  }
}

}  // namespace rvos_edge
