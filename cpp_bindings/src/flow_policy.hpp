/// @file
/// The flow policy: compute a frame's optical flow, keep an earlier one, or take it as zero.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "rvos_edge/engine.hpp"
#include "rvos_edge/flow.hpp"
#include "rvos_edge/image.hpp"
#include "scene_change.hpp"

namespace rvos_edge {

/// Check the ranges of the options.
/// @throws UserError  An option is out of range.
void check_flow_options(const FlowOptions& options);

/// Flow that fits into the next frame.
struct Allowance {
  /// Flow updates; 0 for no flow.
  int iterations = 0;
  /// The frame exceeds its budget even without flow.
  bool late = false;
};

/// Keeps the frames of a stream within their time by computing less flow.
///
/// The cost of flow is measured relative to the stages that always run. A machine that slows down slows both, so the
/// cost is known even while no flow is computed. Times are passed in; no clock is read.
class FrameBudget {
 public:
  /// @param fps         Frames per second to hold.
  /// @param iterations  Flow updates wanted per frame.
  FrameBudget(double fps, int iterations);
  /// Change the wanted updates; measurements stay.
  void set_most(int iterations) noexcept;
  /// Add the times of a frame. A frame whose flow was computed but not timed by stage is ignored.
  void observe(const std::vector<Timing>& timings, int iterations);
  /// Decide on the next frame; call it once per frame.
  [[nodiscard]] Allowance allow();

 private:
  /// The last few values.
  class Window {
   public:
    void add(double value);
    void clear() noexcept { values_.clear(); }
    [[nodiscard]] std::size_t size() const noexcept { return values_.size(); }
    /// The lower of the two middle values.
    [[nodiscard]] double median_low() const;

   private:
    std::deque<double> values_;
  };

  void settle() noexcept;
  [[nodiscard]] int affordable(double limit) const;

  double budget_;
  int most_;
  int level_;
  Window always_;
  Window once_;
  Window step_;
  std::int64_t without_ = 0;
  std::int64_t calm_ = 0;
  int room_;
};

/// Decides frame by frame: call `decide`, do the work, and pass its times to `observe`.
class FlowPolicy {
 public:
  /// @param iterations  The bundle's updates per flow.
  FlowPolicy(const FlowOptions& options, int iterations);
  /// Updates per computed flow.
  [[nodiscard]] int iterations() const noexcept { return iterations_; }
  /// Change the updates per computed flow from the next decision on; the video's state stays.
  void set_iterations(int iterations) noexcept;
  /// Forget the video: the next frame is a first frame. Measured times stay.
  void reset() noexcept;
  /// Decide on the next frame; call it once per frame.
  /// @param image  The network's input, uint8 [h,w,3] of size `input`.
  /// @param size   Height and width of the frame it was made from.
  [[nodiscard]] FlowDecision decide(const std::uint8_t* image, Size input, Size size);
  /// Add the times of a frame, in milliseconds by stage, which `hold_fps` uses.
  void observe(const std::vector<Timing>& timings, const FlowDecision& decision);

 private:
  [[nodiscard]] FlowDecision run(const Allowance& allowed);
  [[nodiscard]] FlowDecision zero(const char* reason, const Allowance& allowed);
  [[nodiscard]] FlowDecision skip(const char* reason, const Allowance& allowed);
  [[nodiscard]] FlowDecision choose(const char* start, const Allowance& allowed);
  [[nodiscard]] bool rests(double still);

  FlowOptions options_;
  int iterations_;
  SceneChange scene_;
  std::optional<FrameBudget> budget_;
  std::optional<Size> size_;
  bool computed_ = false;
  bool encoded_ = false;
  std::int64_t since_ = 0;
  std::int64_t calm_ = 0;
};

}  // namespace rvos_edge
