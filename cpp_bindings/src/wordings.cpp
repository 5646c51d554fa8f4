#include "wordings.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "json_value.hpp"

namespace rvos_edge {

/// rvos_edge/nouns.json, which the build puts into the library.
extern const char* const nouns_json;

namespace {

constexpr const char* moving = "the moving object";
/// Words of the longest noun that is looked for.
constexpr std::size_t longest = 4;
constexpr std::string_view after =
    " on in at to with by of from near next behind beside before under over above below inside into onto through past "
    "across along around between among that which who whose wearing and is are was has while ";
constexpr std::string_view determiners =
    " a an the this that these those his her its their one two three all both some ";
constexpr std::pair<std::string_view, std::string_view> irregular[] = {
    {"person", "people"},       {"fish", "fish"},        {"sheep", "sheep"},  {"deer", "deer"},
    {"mouse", "mice"},          {"wolf", "wolves"},      {"knife", "knives"}, {"clothing", "clothing"},
    {"furniture", "furniture"}, {"aircraft", "aircraft"}};

bool is_in(std::string_view list, const std::string& word) {
  return list.find(" " + word + " ") != std::string_view::npos;
}

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

/// A word in lower case, or a noun of several, and its place in the text.
struct Word {
  std::string text;
  std::size_t start = 0;
  std::size_t end = 0;
};

std::vector<Word> words_of(const std::string& text) {
  std::vector<Word> words;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char letter = text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] + ('a' - 'A')) : text[i];
    if ((letter < 'a' || letter > 'z') && letter != '\'' && letter != '-') {
      continue;
    }
    if (words.empty() || words.back().end != i) {
      words.push_back({"", i, i});
    }
    words.back().text += letter;
    words.back().end = i + 1;
  }
  return words;
}

/// Text before and after the last space.
std::pair<std::string, std::string> split_last(const std::string& noun) {
  const std::size_t space = noun.rfind(' ') + 1;
  return {noun.substr(0, space), noun.substr(space)};
}

std::string plural(const std::string& noun) {
  const auto [head, last] = split_last(noun);
  for (const auto& [one, many] : irregular) {
    if (last == one) {
      return head + std::string(many);
    }
  }
  if (ends_with(last, "s") || ends_with(last, "sh") || ends_with(last, "ch") || ends_with(last, "x")) {
    return noun + "es";
  }
  const bool vowel = last.size() > 1 && std::string_view("aeiou").find(last[last.size() - 2]) != std::string_view::npos;
  return ends_with(last, "y") && last.size() > 1 && !vowel ? noun.substr(0, noun.size() - 1) + "ies" : noun + "s";
}

/// A noun of a text.
struct Found {
  Word place;
  std::size_t row = 0;
  bool plural = false;
};

/// Nouns and their kinds.
class Nouns {
 public:
  Nouns() {
    const Json content = Json::parse(nouns_json);
    for (const Json& row : content.at("nouns")) {
      const std::string names = row.get<std::string>() + ",";
      for (std::size_t start = 0; start < names.size(); start = names.find(',', start) + 1) {
        rows_.emplace(names.substr(start, names.find(',', start) - start), usual_.size());
      }
      usual_.push_back(names.substr(0, names.find(',')));
    }
    for (const auto& [noun, row] : content.at("senses").items()) {
      rows_[noun] = row.get<std::size_t>();
    }
    parents_ = content.at("parents").get<std::vector<std::int64_t>>();
    for (const auto& [many, one] : content.at("plurals").items()) {
      plurals_[many] = one.get<std::string>();
    }
  }

  /// The nouns of a text from left to right, the longest where several begin at a word.
  [[nodiscard]] std::vector<Found> find(const std::vector<Word>& words) const {
    std::vector<Found> found;
    for (std::size_t at = 0; at < words.size();) {
      std::size_t length = std::min(longest, words.size() - at);
      for (; length > 0; --length) {
        std::string phrase = words[at].text;
        for (std::size_t i = 1; i < length; ++i) {
          phrase += " " + words[at + i].text;
        }
        if (const std::optional<std::size_t> known = row(phrase)) {
          found.push_back({{phrase, words[at].start, words[at + length - 1].end}, *known, rows_.count(phrase) == 0});
          break;
        }
      }
      at += std::max<std::size_t>(length, 1);
    }
    return found;
  }

  /// The usual word for the nearest kind of a noun; empty where it has none.
  [[nodiscard]] std::string above(std::size_t row) const {
    return parents_[row] < 0 ? "" : usual_[static_cast<std::size_t>(parents_[row])];
  }

 private:
  [[nodiscard]] std::optional<std::size_t> row(const std::string& noun) const {
    if (const auto found = rows_.find(noun); found != rows_.end()) {
      return found->second;
    }
    const auto [head, last] = split_last(noun);
    const auto known = plurals_.find(last);
    std::vector<std::string> options = {known == plurals_.end() ? "" : known->second};
    for (const auto& [end, instead] : {std::pair{"s", ""}, {"es", ""}, {"ies", "y"}}) {
      if (ends_with(last, end)) {
        options.push_back(last.substr(0, last.size() - std::string_view(end).size()) + instead);
      }
    }
    for (const std::string& option : options) {
      const auto found = rows_.find(head + option);
      if (!option.empty() && found != rows_.end()) {
        return found->second;
      }
    }
    return std::nullopt;
  }

  std::unordered_map<std::string, std::size_t> rows_;
  std::unordered_map<std::string, std::string> plurals_;
  std::vector<std::string> usual_;
  std::vector<std::int64_t> parents_;
};

/// The noun that a sentence is about: the last one before a verb, a preposition or another article.
std::optional<Found> main_noun(const std::string& sentence, const Nouns& nouns) {
  const std::vector<Word> words = words_of(sentence);
  const std::vector<Found> all = nouns.find(words);
  auto waiting = all.begin();
  std::optional<Found> found;
  for (const Word& word : words) {
    if (found && word.start < found->place.end) {
      continue;
    }
    if (waiting != all.end() && waiting->place.start == word.start) {
      found = *waiting++;
    } else if (is_in(after, word.text) || (&word != &words.front() && is_in(determiners, word.text))) {
      break;
    } else if (found) {
      // A word that is not known: "a kite flibber" is not about a kite.
      const bool verb = ends_with(word.text, "ing") || ends_with(word.text, "ed") || ends_with(word.text, "s");
      return verb ? found : std::nullopt;
    }
  }
  return found;
}

/// The sentence with another noun, and the article that it needs.
std::string replaced(const std::string& sentence, const Word& place, std::string noun) {
  std::string before = sentence.substr(0, place.start);
  for (const char* const article : {"a ", "an "}) {
    const std::size_t start = before.size() - std::string_view(article).size();
    if (ends_with(before, article) && (start == 0 || words_of(before).back().start == start)) {
      before.erase(start);
      noun = (std::string_view("aeiou").find(noun.front()) == std::string_view::npos ? "a " : "an ") + noun;
      break;
    }
  }
  return before + noun + sentence.substr(place.end);
}

}  // namespace

std::vector<std::string> wordings(const std::string& sentence) {
  static const Nouns nouns;
  std::vector<std::string> all = {sentence};
  if (const std::optional<Found> found = main_noun(sentence, nouns)) {
    const Word& place = found->place;
    all.push_back(sentence.substr(place.start, place.end - place.start));
    if (const std::string wider = nouns.above(found->row); !wider.empty()) {
      all.push_back(replaced(sentence, place, found->plural ? plural(wider) : wider));
    }
  }
  all.emplace_back(moving);
  std::vector<std::string> once;
  std::copy_if(all.begin(), all.end(), std::back_inserter(once), [&once](const std::string& wording) {
    return std::find(once.begin(), once.end(), wording) == once.end();
  });
  return once;
}

}  // namespace rvos_edge
