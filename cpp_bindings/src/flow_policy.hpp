/// @file
/// Whether a frame's optical flow is computed, kept from an earlier frame or taken as zero.
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

/// Refuse options out of their range; UserError names the option.
void check_flow_options(const FlowOptions& options);

/// What fits the next frame.
struct Allowance {
  /// Flow updates; 0 for no flow.
  int iterations = 0;
  /// The frame exceeds its budget even without flow.
  bool late = false;
};

/// Keeps the frames of a stream within their time by computing less flow; nothing else can be left out.
///
/// The cost of flow is kept in units of the stages that always run: a machine that slows down slows both, so that what
/// flow would cost is known while it is not computed. No clock is read here: the times are told.
class Deadline {
 public:
  /// @param fps         Frames per second to hold.
  /// @param iterations  Flow updates of a frame that has all the time it wants.
  Deadline(double fps, int iterations);
  /// Learn from a frame; one whose flow was computed but not timed by stage teaches nothing.
  void observe(const std::vector<Timing>& timings, int iterations);
  /// Decide on the next frame; call it once per frame.
  [[nodiscard]] Allowance allow();

 private:
  /// The last few values; older ones are forgotten.
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

/// Decides frame by frame: call `decide`, do it, and tell `observe` how long it took.
class FlowPolicy {
 public:
  /// @param iterations  The bundle's updates per flow.
  FlowPolicy(const FlowOptions& options, int iterations);
  /// Forget the video: the next frame is a first frame. What the machine can do stays known.
  void reset() noexcept;
  /// Decide on the next frame; call it once per frame.
  /// @param image  uint8 [h,w,3] of `input`, the network's input.
  /// @param size   Height and width of the frame it was made from.
  [[nodiscard]] FlowDecision decide(const std::uint8_t* image, Size input, Size size);
  /// Learn what a frame took, in milliseconds by stage; only `hold_fps` wants to know.
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
  std::optional<Deadline> deadline_;
  std::optional<Size> size_;
  bool computed_ = false;
  bool encoded_ = false;
  std::int64_t since_ = 0;
  std::int64_t calm_ = 0;
};

}  // namespace rvos_edge
