#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "manifest.hpp"
#include "rvos_edge/error.hpp"
#include "tokenizer.hpp"

namespace rvos_edge {
namespace {

using Json = nlohmann::json;

[[noreturn]] void refuse(const std::string& reason) {
  throw std::runtime_error(reason);
}

/// Nesting of JSON that is read; a tokenizer has 5 levels.
constexpr int deepest = 32;
constexpr std::uint64_t highest = std::numeric_limits<std::int32_t>::max();

std::int64_t number_of(const Json& value, const std::string& name) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > highest) {
    refuse(name + " is not an integer from 0 to 2147483647");
  }
  return value.get<std::int64_t>();
}

std::int64_t id_of(const Json& value) {
  return number_of(value, "a token id");
}

/// The type of a component, "null" if it is missing.
std::string type_of(const Json& component) {
  return component.is_null() ? "null" : component.at("type").get<std::string>();
}

void read_model(const Json& model, TokenizerSpec& spec) {
  if (!model.is_object() || model.value("type", "WordPiece") != "WordPiece") {
    refuse("its model is not WordPiece");
  }
  spec.vocabulary.reserve(model.at("vocab").size());
  for (const auto& [token, id] : model.at("vocab").items()) {
    spec.vocabulary.emplace(token, id_of(id));
  }
  spec.prefix = model.at("continuing_subword_prefix").get<std::string>();
  spec.longest_word =
      static_cast<std::size_t>(number_of(model.at("max_input_chars_per_word"), "'max_input_chars_per_word'"));
  const auto unknown = spec.vocabulary.find(model.at("unk_token").get<std::string>());
  if (unknown == spec.vocabulary.end()) {
    refuse("the vocabulary lacks the unknown token");
  }
  spec.unknown = unknown->second;
}

void read_template(const Json& processor, TokenizerSpec& spec) {
  bool seen = false;
  for (const Json& piece : processor.at("single")) {
    if (piece.contains("Sequence")) {
      if (seen) {
        refuse("its template has the text twice");
      }
      seen = true;
      continue;
    }
    const auto token = piece.at("SpecialToken").at("id").get<std::string>();
    for (const Json& id : processor.at("special_tokens").at(token).at("ids")) {
      (seen ? spec.after : spec.before).push_back(id_of(id));
    }
  }
  if (!seen) {
    refuse("its template lacks the text");
  }
}

void read_components(const Json& document, TokenizerSpec& spec) {
  const Json normalizer = document.value("normalizer", Json());
  if (const std::string type = type_of(normalizer); type == "BertNormalizer") {
    spec.clean_text = normalizer.value("clean_text", true);
    spec.lowercase = normalizer.value("lowercase", true);
  } else if (type != "null") {
    refuse("its normalizer '" + type + "' is not supported, use BertNormalizer");
  }
  if (const std::string type = type_of(document.value("pre_tokenizer", Json())); type != "BertPreTokenizer") {
    refuse("its pre-tokenizer '" + type + "' is not supported, use BertPreTokenizer");
  }
  read_model(document.at("model"), spec);
  const Json processor = document.value("post_processor", Json());
  if (const std::string type = type_of(processor); type == "TemplateProcessing") {
    read_template(processor, spec);
  } else if (type == "BertProcessing") {
    spec.before.push_back(id_of(processor.at("cls").at(1)));
    spec.after.push_back(id_of(processor.at("sep").at(1)));
  } else if (type != "null") {
    refuse("its post-processor '" + type + "' is not supported, use TemplateProcessing or BertProcessing");
  }
  // Special tokens stand in the vocabulary; others would be matched in the text first.
  for (const Json& entry : document.value("added_tokens", Json::array())) {
    if (!entry.value("special", false)) {
      refuse("it has added tokens, which are not supported");
    }
  }
}

}  // namespace

TokenizerSpec parse_tokenizer(std::string_view json) {
  const auto shallow = [](int depth, Json::parse_event_t, Json&) {
    if (depth > deepest) {
      refuse("it is nested too deeply");
    }
    return true;
  };
  const Json document = Json::parse(json.begin(), json.end(), shallow, false);
  if (!document.is_object()) {
    refuse("it is not a JSON object");
  }
  TokenizerSpec spec;
  try {
    read_components(document, spec);
  } catch (const Json::exception& error) {  // a member is missing, or of another type
    refuse(error.what());
  }
  return spec;
}

Tokenizer Tokenizer::from_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string json{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  try {
    return Tokenizer(parse_tokenizer(json));
  } catch (const std::exception& error) {
    throw UserError(ErrorCode::bad_bundle,
                    path_text(path) + " is not a tokenizer (" + error.what() + "); export the bundle again.");
  }
}

}  // namespace rvos_edge
