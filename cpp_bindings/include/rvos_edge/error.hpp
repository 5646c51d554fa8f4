/// @file
/// The exception for bad input.
#pragma once

#include <stdexcept>
#include <string>

#include "rvos_edge/api.h"

namespace rvos_edge {

/// Kind of bad input. The numbers are those of `rvos_status` in rvos_edge.h and do not change.
enum class ErrorCode : int {
  ok = 0,
  /// An option or an argument has an invalid value.
  invalid_argument = 1,
  /// A file, a graph or an input size is missing.
  not_found = 2,
  /// The bundle is damaged, of another format version, or its wiring does not close.
  bad_bundle = 3,
  /// A query is missing, empty, too long or not English text.
  bad_query = 4,
  /// The image is null, empty, not of three channels, or its rows overlap.
  bad_frame = 5,
  /// The backend is unknown, not built in, or cannot use the device.
  unsupported_backend = 6,
  /// A graph cannot be loaded or run by the backend.
  engine = 7,
  /// Out of memory, or a fault of this library; only the C interface reports it.
  internal = 8,
};

/// Bad input. `what()` is one sentence that names the file or option and the remedy.
///
/// Any function of the C++ interface that is not `noexcept` may throw it. It never crosses the C interface, where it
/// becomes a code and a message. Other exceptions have their usual meaning: `std::bad_alloc`, and `std::logic_error`
/// for an error in the calling code.
class RVOS_EDGE_API UserError : public std::runtime_error {
 public:
  UserError(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}

  /// Kind of bad input.
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace rvos_edge
