/// @file
/// JSON from files, read strictly: every value has its type and range, and every member is known.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <utility>

namespace rvos_edge {

using Json = nlohmann::ordered_json;

/// Nesting of JSON that is read; a manifest has 7 levels.
inline constexpr int deepest = 32;
/// A field that is wrong, and what it should be.
struct Invalid {
  std::string field;
  std::string reason;
};

/// A value of the document and the path to it.
class Value {
 public:
  Value(const Json& json, std::string field) : json_(&json), field_(std::move(field)) {}

  [[noreturn]] void fail(const std::string& reason) const { throw Invalid{field_, reason}; }
  [[nodiscard]] const Json& json() const noexcept { return *json_; }

  [[nodiscard]] Value child(const Json& json, const std::string& name) const {
    return {json, field_.empty() ? name : field_ + "." + name};
  }

  [[nodiscard]] std::string text() const {
    if (!json_->is_string()) {
      fail("must be a string");
    }
    return json_->get<std::string>();
  }

  [[nodiscard]] bool boolean() const {
    if (!json_->is_boolean()) {
      fail("must be true or false");
    }
    return json_->get<bool>();
  }

  [[nodiscard]] std::int64_t integer(std::int64_t least = 0,
                                     std::int64_t most = std::numeric_limits<std::int64_t>::max()) const {
    // A number beyond 64 bits is parsed as floating point and refused here.
    const bool fits = json_->is_number_integer() &&
                      (!json_->is_number_unsigned() || json_->get<std::uint64_t>() <= std::uint64_t{INT64_MAX});
    const std::int64_t value = fits ? json_->get<std::int64_t>() : 0;
    if (!fits || value < least || value > most) {
      fail("must be an integer from " + std::to_string(least) + " to " + std::to_string(most));
    }
    return value;
  }

  [[nodiscard]] double number() const {
    const double value = json_->is_number() ? json_->get<double>() : std::numeric_limits<double>::quiet_NaN();
    if (!std::isfinite(value)) {
      fail("must be a finite number");
    }
    return value;
  }

  /// Index of the value among `words`.
  template <std::size_t N>
  [[nodiscard]] std::size_t choice(const char* const (&words)[N]) const {
    const std::string found = text();
    const auto* const known = std::find(std::begin(words), std::end(words), found);
    if (known == std::end(words)) {
      fail("is not a known value");
    }
    return static_cast<std::size_t>(known - std::begin(words));
  }

  /// Call `visit(Value)` with each item of a list.
  template <class Visit>
  void items(Visit visit) const {
    if (!json_->is_array()) {
      fail("must be a list");
    }
    for (std::size_t i = 0; i < json_->size(); ++i) {
      visit(child((*json_)[i], std::to_string(i)));
    }
  }

  /// Call `visit(name, Value)` with each member of an object.
  template <class Visit>
  void members(Visit visit) const {
    if (!json_->is_object()) {
      fail("must be an object");
    }
    for (const auto& [name, json] : json_->items()) {
      visit(name, child(json, name));
    }
  }

 private:
  const Json* json_;
  std::string field_;
};

/// An object with known members; `done` refuses unknown ones.
class Object {
 public:
  explicit Object(const Value& value) : value_(value) {
    if (!value.json().is_object()) {
      value.fail("must be an object");
    }
  }

  [[nodiscard]] Value need(const char* name) {
    const Json* found = find(name);
    if (found == nullptr) {
      value_.child(value_.json(), name).fail("is missing");
    }
    return value_.child(*found, name);
  }

  /// Call `visit(Value)` if the member exists.
  template <class Visit>
  void may(const char* name, Visit visit) {
    if (const Json* found = find(name)) {
      visit(value_.child(*found, name));
    }
  }

  void done() const {
    for (const auto& [name, json] : value_.json().items()) {
      if (known_.count(name) == 0) {
        value_.child(json, name).fail("is not a known field");
      }
    }
  }

 private:
  const Json* find(const char* name) {
    known_.insert(name);
    const auto found = value_.json().find(name);
    return found == value_.json().end() ? nullptr : &*found;
  }

  Value value_;
  std::set<std::string> known_;
};

/// Parse a document of bounded depth.
/// @throws Invalid  It is nested too deeply, or is no JSON.
inline Json parse_json(std::string_view text) {
  try {
    return Json::parse(text.begin(), text.end(), [](int depth, Json::parse_event_t, Json&) {
      if (depth > deepest) {
        throw Invalid{"", "is nested too deeply"};
      }
      return true;
    });
  } catch (const Json::exception&) {
    throw Invalid{"", "is not readable JSON"};
  }
}

}  // namespace rvos_edge
