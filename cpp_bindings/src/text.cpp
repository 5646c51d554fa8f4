#include "text.hpp"

#include <algorithm>
#include <cstring>
#include <iomanip>
#include <iterator>
#include <sstream>

#include "names.hpp"
#include "rvos_edge/error.hpp"
#include "unicode.hpp"

namespace rvos_edge {
namespace {

constexpr std::size_t longest_word = 100;

[[nodiscard]] UserError bad(const std::string& sentence) {
  return {ErrorCode::bad_query, sentence};
}

std::string code_point(char32_t code) {
  std::ostringstream text;
  text << "U+" << std::hex << std::uppercase << std::setw(4) << std::setfill('0') << static_cast<unsigned>(code);
  return text.str();
}

std::string check_query(const std::string& query, const std::string& name) {
  const std::u32string text = decode_utf8(query);
  std::u32string normalised;
  for (const std::u32string_view word : split_words(text)) {
    // A word this long would be a single unknown token, so the limit on tokens does not catch it.
    if (word.size() > longest_word) {
      throw bad(name + " has a word of " + std::to_string(word.size()) + " characters and at most " +
                std::to_string(longest_word) + " are read; shorten it.");
    }
    normalised.append(normalised.empty() ? U"" : U" ").append(word);
  }
  if (normalised.empty()) {
    throw bad(name + " is empty; describe an object, such as 'the dog on the left'.");
  }
  const auto strange = std::find_if_not(normalised.begin(), normalised.end(), is_readable);
  if (strange != normalised.end()) {
    throw bad(name + " has the character " + code_point(*strange) + "; write it in English, in plain Latin letters.");
  }
  return encode_utf8(normalised);
}

HostTensor row_of(const std::string& name, const std::vector<std::int64_t>& ids) {
  HostTensor tensor{name, DType::int64, {1, static_cast<std::int64_t>(ids.size())}, {}};
  tensor.data.resize(ids.size() * sizeof(std::int64_t));
  std::memcpy(tensor.data.data(), ids.data(), tensor.data.size());
  return tensor;
}

}  // namespace

std::vector<std::string> check_queries(const std::vector<std::string>& queries) {
  if (queries.empty()) {
    throw bad("there is no query; give at least one, such as 'the dog on the left'.");
  }
  std::vector<std::string> normalised;
  normalised.reserve(queries.size());
  for (const std::string& query : queries) {
    normalised.push_back(check_query(query, "query " + std::to_string(normalised.size() + 1)));
  }
  return normalised;
}

TextEncoder::TextEncoder(const Bundle& bundle, std::unique_ptr<HostGraph> graph, std::size_t entries)
    : tokenizer_(Tokenizer::from_file(bundle.tokenizer_path())), graph_(std::move(graph)),
      inputs_(bundle.manifest().graph(text_graph).inputs),
      max_tokens_(static_cast<std::size_t>(bundle.manifest().text.max_tokens)),
      max_queries_(static_cast<std::size_t>(bundle.manifest().max_queries)), entries_(entries) {}

void TextEncoder::check_number(std::size_t queries) const {
  if (queries > max_queries_) {
    throw bad("there are " + std::to_string(queries) + " queries and this bundle takes at most " +
              std::to_string(max_queries_) + " at once; give fewer.");
  }
}

std::vector<HostTensor> TextEncoder::encode(const std::vector<std::string>& queries) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<HostTensor> stacked;
  std::size_t number = 0;
  for (const std::string& query : queries) {
    const Vectors& vectors = one(query, ++number);
    for (std::size_t i = 0; i < vectors.size(); ++i) {
      if (stacked.size() == i) {
        Shape shape = vectors[i].shape;
        shape.insert(shape.begin(), static_cast<std::int64_t>(queries.size()));
        stacked.push_back({vectors[i].name, vectors[i].dtype, std::move(shape), {}});
      }
      stacked[i].data.insert(stacked[i].data.end(), vectors[i].data.begin(), vectors[i].data.end());
    }
  }
  return stacked;
}

const TextEncoder::Vectors& TextEncoder::one(const std::string& query, std::size_t number) {
  if (const auto known = memory_.find(query); known != memory_.end()) {
    recent_.splice(recent_.end(), recent_, known->second);
    return known->second->second;
  }
  recent_.emplace_back(query, run(query, number));
  memory_[query] = std::prev(recent_.end());
  // The newest entry is being returned, so at least one stays.
  while (recent_.size() > std::max<std::size_t>(entries_, 1)) {
    memory_.erase(recent_.front().first);
    recent_.pop_front();
  }
  return recent_.back().second;
}

std::vector<std::string> TextEncoder::check(const std::vector<std::string>& queries) const {
  std::vector<std::string> normalised = check_queries(queries);
  check_number(normalised.size());
  for (std::size_t i = 0; i < normalised.size(); ++i) {
    static_cast<void>(tokens(normalised[i], i + 1));
  }
  return normalised;
}

std::vector<std::int64_t> TextEncoder::tokens(const std::string& query, std::size_t number) const {
  std::vector<std::int64_t> ids = tokenizer_.encode(decode_utf8(query));
  if (ids.size() > max_tokens_) {
    throw bad("query " + std::to_string(number) + " has " + std::to_string(ids.size()) +
              " tokens and this bundle takes at most " + std::to_string(max_tokens_) + "; shorten it.");
  }
  return ids;
}

TextEncoder::Vectors TextEncoder::run(const std::string& query, std::size_t number) {
  const std::vector<std::int64_t> ids = tokens(query, number);
  std::vector<HostTensor> inputs;
  for (const TensorSpec& spec : inputs_) {
    inputs.push_back(row_of(spec.name, spec.name == ids_input ? ids : std::vector<std::int64_t>(ids.size(), 1)));
  }
  Vectors vectors = graph_->run(inputs);
  for (HostTensor& vector : vectors) {
    // [1,c] -> [c]
    if (!vector.shape.empty()) {
      vector.shape.erase(vector.shape.begin());
    }
  }
  return vectors;
}

}  // namespace rvos_edge
