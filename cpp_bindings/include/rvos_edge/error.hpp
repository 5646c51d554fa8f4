/// @file
/// The one exception that is the user's to mend.
#pragma once

#include <stdexcept>
#include <string>

namespace rvos_edge {

/// What kind of bad input it was; the numbers are those of `rvos_status` in rvos_edge.h and do not change.
enum class ErrorCode : int {
  ok = 0,
  /// An option or an argument has a value that it cannot have.
  invalid_argument = 1,
  /// A file, a graph or an input size is missing.
  not_found = 2,
  /// The bundle is damaged, of another format version, or its wiring does not close.
  bad_bundle = 3,
  /// A query is missing, empty, too long or not valid Unicode.
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

/// Bad input. `what()` is one sentence that names the file or option and the remedy: the sentence of the Python
/// runtime.
///
/// Thrown by every function of the C++ interface that is not `noexcept`; never crosses the C interface, where it is a
/// code and a message. Other exceptions mean what they mean everywhere: `std::bad_alloc`, and `std::logic_error` for a
/// fault in the calling code.
class UserError : public std::runtime_error {
 public:
  UserError(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}

  /// What kind of bad input it was.
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace rvos_edge
