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
constexpr std::uint64_t highest_id = std::numeric_limits<std::int32_t>::max();

/// A member, or null if it is missing or null.
const Json* member(const Json& object, const char* name) {
  const auto found = object.is_object() ? object.find(name) : object.end();
  return object.is_object() && found != object.end() && !found->is_null() ? &*found : nullptr;
}

std::string text_of(const Json& object, const char* name) {
  const Json* value = member(object, name);
  if (value == nullptr || !value->is_string()) {
    refuse(std::string("it lacks the string '") + name + "'");
  }
  return value->get<std::string>();
}

bool flag_of(const Json& object, const char* name, bool otherwise) {
  const Json* value = member(object, name);
  if (value != nullptr && !value->is_boolean()) {
    refuse(std::string("'") + name + "' must be true or false");
  }
  return value == nullptr ? otherwise : value->get<bool>();
}

std::int64_t id_of(const Json& value) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > highest_id) {
    refuse("a token id is not an integer from 0 to 2147483647");
  }
  return value.get<std::int64_t>();
}

void read_normalizer(const Json& document, TokenizerSpec& spec) {
  const Json* normalizer = member(document, "normalizer");
  if (normalizer == nullptr) {
    return;
  }
  if (const std::string type = text_of(*normalizer, "type"); type != "BertNormalizer") {
    refuse("its normalizer '" + type + "' is not supported, use BertNormalizer");
  }
  spec.clean_text = flag_of(*normalizer, "clean_text", true);
  spec.lowercase = flag_of(*normalizer, "lowercase", true);
}

void read_pre_tokenizer(const Json& document) {
  const Json* splitter = member(document, "pre_tokenizer");
  const std::string type = splitter == nullptr ? "null" : text_of(*splitter, "type");
  if (type != "BertPreTokenizer") {
    refuse("its pre-tokenizer '" + type + "' is not supported, use BertPreTokenizer");
  }
}

void read_model(const Json& document, TokenizerSpec& spec) {
  const Json* model = member(document, "model");
  const Json* type = model == nullptr ? nullptr : member(*model, "type");
  if (model == nullptr || (type != nullptr && *type != "WordPiece")) {
    refuse("its model is not WordPiece");
  }
  const Json* vocabulary = member(*model, "vocab");
  if (vocabulary == nullptr || !vocabulary->is_object()) {
    refuse("it has no vocabulary");
  }
  spec.vocabulary.reserve(vocabulary->size());
  for (const auto& [token, id] : vocabulary->items()) {
    spec.vocabulary.emplace(token, id_of(id));
  }
  spec.prefix = text_of(*model, "continuing_subword_prefix");
  const Json* longest = member(*model, "max_input_chars_per_word");
  if (longest == nullptr || !longest->is_number_unsigned()) {
    refuse("it lacks the number 'max_input_chars_per_word'");
  }
  spec.longest_word = longest->get<std::size_t>();
  const auto unknown = spec.vocabulary.find(text_of(*model, "unk_token"));
  if (unknown == spec.vocabulary.end()) {
    refuse("the vocabulary lacks the unknown token");
  }
  spec.unknown = unknown->second;
}

void read_template(const Json& processor, TokenizerSpec& spec) {
  const Json* single = member(processor, "single");
  const Json* special = member(processor, "special_tokens");
  if (single == nullptr || !single->is_array()) {
    refuse("its post-processor has no template");
  }
  bool seen = false;
  for (const Json& piece : *single) {
    if (member(piece, "Sequence") != nullptr) {
      if (seen) {
        refuse("its template has the text twice");
      }
      seen = true;
      continue;
    }
    const Json* token = member(piece, "SpecialToken");
    const Json* entry =
        token == nullptr || special == nullptr ? nullptr : member(*special, text_of(*token, "id").c_str());
    const Json* ids = entry == nullptr ? nullptr : member(*entry, "ids");
    if (ids == nullptr || !ids->is_array()) {
      refuse("its template names a token without an id");
    }
    for (const Json& id : *ids) {
      (seen ? spec.after : spec.before).push_back(id_of(id));
    }
  }
  if (!seen) {
    refuse("its template lacks the text");
  }
}

void read_post_processor(const Json& document, TokenizerSpec& spec) {
  const Json* processor = member(document, "post_processor");
  if (processor == nullptr) {
    return;
  }
  const std::string type = text_of(*processor, "type");
  if (type == "TemplateProcessing") {
    read_template(*processor, spec);
  } else if (type == "BertProcessing") {
    for (const auto& [name, target] : {std::pair{"cls", &spec.before}, std::pair{"sep", &spec.after}}) {
      const Json* pair = member(*processor, name);
      if (pair == nullptr || !pair->is_array() || pair->size() != 2) {
        refuse(std::string("its post-processor has no '") + name + "'");
      }
      target->push_back(id_of((*pair)[1]));
    }
  } else {
    refuse("its post-processor '" + type + "' is not supported, use TemplateProcessing or BertProcessing");
  }
}

/// Special tokens stand in the vocabulary; others would be matched in the text first.
void check_added(const Json& document) {
  const Json* added = member(document, "added_tokens");
  for (const Json& entry : added == nullptr ? Json::array() : *added) {
    if (!flag_of(entry, "special", false)) {
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
  read_normalizer(document, spec);
  read_pre_tokenizer(document);
  read_model(document, spec);
  read_post_processor(document, spec);
  check_added(document);
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
