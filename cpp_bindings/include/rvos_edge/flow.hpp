/// @file
/// Options of the optical flow, and the decision taken on each frame.
#pragma once

#include <optional>
#include <string>

#include "rvos_edge/api.h"

namespace rvos_edge {

/// How much flow to compute. Values out of range are refused when the segmenter is made.
struct FlowOptions {
  /// False: no flow graph is loaded and the flow is zero.
  bool enabled = true;
  /// Update steps per computed flow, at least 1; none takes the bundle's number.
  std::optional<int> iterations;
  /// Compute the flow on every n-th frame and keep it between; at least 1.
  int every = 1;
  /// Largest change of a cell of a 32 x 18 thumbnail, in grey levels, at which nothing moves: the flow is then zero and
  /// not computed. About 3 allows for a camera's noise; none never checks.
  std::optional<double> still;
  /// Frames per second to hold, above 0 and at most 1000, by computing less flow: fewer updates, then none. This bounds
  /// the time of `step`; drawing and writing come on top.
  std::optional<double> hold_fps;
  /// Put the flow into every result.
  bool keep_flow = false;
};

/// "run" computes the flow, "keep" leaves the last one, "zero" clears it.
enum class FlowAction { run, keep, zero };

/// "run", "keep" or "zero".
[[nodiscard]] RVOS_EDGE_API const char* flow_action_name(FlowAction action) noexcept;

/// Decision on the flow of one frame.
struct FlowDecision {
  FlowAction action = FlowAction::zero;
  /// Reason for the action, for people.
  std::string reason;
  /// Updates of a "run", else 0.
  int iterations = 0;
  /// With "run": start from the last flow instead of zero.
  bool warm = false;
  /// The frame's features are computed, for its own flow or the next frame's.
  bool encode = true;
  /// With `hold_fps`: the frame takes too long even without flow.
  bool late = false;
};

}  // namespace rvos_edge
