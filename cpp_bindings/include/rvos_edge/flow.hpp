/// @file
/// How much optical flow is computed, and what was decided about it.
#pragma once

#include <optional>
#include <string>

namespace rvos_edge {

/// How much flow is worth computing. Values out of range are refused where the segmenter is made.
struct FlowOptions {
  /// False: no flow graph is loaded and the flow is zero.
  bool enabled = true;
  /// Update steps per computed flow, at least 1; none takes the bundle's number.
  std::optional<int> iterations;
  /// Compute the flow on every n-th frame and keep it between; at least 1.
  int every = 1;
  /// Start from the last computed flow instead of zero.
  bool warm_start = true;
  /// Mean absolute difference of successive thumbnails, in grey levels, above which another picture is a cut: the flow
  /// starts anew. None: there are no cuts.
  std::optional<double> scene_cut = 30.0;
  /// Grey levels that no cell of a thumbnail of 32 x 18 may exceed in its change if nothing is to be moving: the flow
  /// is then zero and not computed. About 3 leaves room for a camera's noise; none never looks.
  std::optional<double> still;
  /// Frames per second to hold by computing less flow, above 0 and at most 1000: fewer updates first, then none. It is
  /// the segmenter's own time that is held; drawing and writing come on top.
  std::optional<double> hold_fps;
  /// With `hold_fps`: for so many frames the flow that there is no time to renew is kept; then it is zero.
  int keep_frames = 4;
  /// Put the flow into every result.
  bool keep_flow = false;
};

/// "run" computes the flow, "keep" leaves the last one, "zero" clears it.
enum class FlowAction { run, keep, zero };

/// "run", "keep" or "zero".
[[nodiscard]] const char* flow_action_name(FlowAction action) noexcept;

/// What was done about the flow of one frame.
struct FlowDecision {
  FlowAction action = FlowAction::zero;
  /// In a few words.
  std::string reason;
  /// Updates of a "run", else 0.
  int iterations = 0;
  /// With "run": start from the coordinates of the last run instead of the identity grid.
  bool warm = false;
  /// Whether the frame's features are computed, for this frame's flow or for the next one's.
  bool encode = true;
  /// With `hold_fps`: the frame takes too long even without flow.
  bool late = false;
};

}  // namespace rvos_edge
