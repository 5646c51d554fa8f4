#include "rvos_edge/language.hpp"

#include <algorithm>
#include <cctype>
#include <string_view>
#include <vector>

namespace rvos_edge {
namespace {

// The words of rvos_edge/language.py that are plain ASCII; a test compares the two.
constexpr std::string_view english =
    " the a an on of with to by from near next behind beside under over and or is are that this these those which "
    "who whose its his her their my your left right all both some any two three four other at in into for ";
constexpr std::string_view foreign =
    " der die das ein eine einen einem einer den dem des auf mit und im neben von vor hinter unter zum links rechts "
    "le la les un une du aux est dans sur avec sous gauche droite l'homme el los las una unos unas del al con junto "
    "sobre izquierda derecha il lo gli di della dei nel sulla sinistra destra o os um uma da dos esquerda direita ao "
    "het een op naast en de met na obok przy lewej bir ve solda ett det och med till ";

/// Lower-case words: letters, with apostrophes inside.
std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words(1);
  for (const char sign : text) {
    const auto byte = static_cast<unsigned char>(sign);
    if (std::isalpha(byte) != 0 || (sign == '\'' && !words.back().empty())) {
      words.back() += static_cast<char>(std::tolower(byte));
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) {
    words.pop_back();
  }
  return words;
}

bool is_in(std::string_view list, const std::string& word) {
  return list.find(" " + word + " ") != std::string_view::npos;
}

}  // namespace

std::string query_doubt(const std::string& query) {
  if (query.empty() || query.front() == '@' || query.front() == '{') {
    return "";
  }
  const std::vector<std::string> words = words_of(query);
  const auto count = [&words](std::string_view list) {
    return std::count_if(words.begin(), words.end(), [list](const std::string& word) { return is_in(list, word); });
  };
  const auto strange = count(foreign);
  const bool doubted = words.size() > 1 && strange > count(english) && (strange > 1 || is_in(foreign, words.front()));
  return doubted ? "'" + query + "' does not look like English, the language of the model: its mask may be anything"
                 : "";
}

}  // namespace rvos_edge
