/// @file
/// Parser for `--name value` options.
#pragma once

#include <algorithm>
#include <charconv>
#include <iostream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "rvos_edge/bundle.hpp"
#include "rvos_edge/error.hpp"

namespace rvos_edge_examples {

using rvos_edge::ErrorCode;
using rvos_edge::UserError;

[[nodiscard]] inline UserError bad_option(const std::string& sentence) {
  return {ErrorCode::invalid_argument, sentence};
}

/// One option: its name without the dashes, whether it takes a value, and its help.
struct Option {
  std::string name;
  bool has_value;
  std::string help;
};

/// The parsed command line.
class Arguments {
 public:
  Arguments(int argc, char** argv, std::vector<Option> known) : known_(std::move(known)) {
    for (int i = 1; i < argc; ++i) {
      const std::string word = argv[i];
      const auto option = std::find_if(known_.begin(), known_.end(),
                                       [&word](const Option& candidate) { return word == "--" + candidate.name; });
      if (option == known_.end()) {
        throw bad_option("option " + word + " is unknown; --help lists them.");
      }
      if (option->has_value && i + 1 == argc) {
        throw bad_option(word + " needs a value; --help says which.");
      }
      given_.emplace_back(option->name, option->has_value ? argv[++i] : "");
    }
  }

  [[nodiscard]] bool has(const std::string& name) const { return last(name).has_value(); }
  [[nodiscard]] std::string text(const std::string& name, const std::string& otherwise) const {
    return last(name).value_or(otherwise);
  }
  [[nodiscard]] std::vector<std::string> all(const std::string& name) const {
    std::vector<std::string> values;
    for (const auto& [known, value] : given_) {
      if (known == name) {
        values.push_back(value);
      }
    }
    return values;
  }
  /// The option as a whole number, at least `least`.
  [[nodiscard]] std::optional<int> number(const std::string& name, int least) const {
    const std::optional<std::string> value = last(name);
    if (!value) {
      return std::nullopt;
    }
    int number = 0;
    const char* end = value->data() + value->size();
    const auto [stop, problem] = std::from_chars(value->data(), end, number);
    if (problem != std::errc() || stop != end || number < least) {
      throw bad_option("--" + name + " " + *value + " is out of range; give a whole number of at least " +
                       std::to_string(least) + ".");
    }
    return number;
  }
  /// `--size HxW`.
  [[nodiscard]] std::optional<rvos_edge::Size> size(const std::string& name) const {
    const std::optional<std::string> value = last(name);
    if (!value) {
      return std::nullopt;
    }
    rvos_edge::Size size;
    const char* end = value->data() + value->size();
    const auto [cross, first] = std::from_chars(value->data(), end, size.height);
    if (first == std::errc() && cross != end && *cross == 'x') {
      const auto [stop, second] = std::from_chars(cross + 1, end, size.width);
      if (second == std::errc() && stop == end && size.height > 0 && size.width > 0) {
        return size;
      }
    }
    throw bad_option("--" + name + " " + *value + ": write it as HxW, height first, for example 288x512.");
  }

  void print_help(const std::string& what) const {
    std::cout << what << "\n\n";
    for (const Option& option : known_) {
      std::cout << "  --" << option.name << (option.has_value ? " VALUE" : "") << "\n      " << option.help << "\n";
    }
  }

 private:
  [[nodiscard]] std::optional<std::string> last(const std::string& name) const {
    const auto values = all(name);
    return values.empty() ? std::nullopt : std::optional(values.back());
  }

  std::vector<Option> known_;
  std::vector<std::pair<std::string, std::string>> given_;
};

/// Run a program: bad input is one line on stderr and exit code 2.
template <class Main>
int guarded(Main&& program) {
  try {
    return program();
  } catch (const UserError& error) {
    std::cerr << "Error: " << error.what() << "\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "Error: " << error.what() << "\n";
    return 1;
  }
}

}  // namespace rvos_edge_examples
