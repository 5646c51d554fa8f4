#include "flow_policy.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>

#include "names.hpp"
#include "rvos_edge/error.hpp"

namespace rvos_edge {
namespace {

/// Frames in a row without motion before the flow is left out ...
constexpr int calm_frames = 3;
/// ... and the multiple of `still` that must move before it is computed again: noise near the threshold is neither.
constexpr double restless = 1.5;

/// Frames behind an estimate: a median over them does not see single outliers.
constexpr std::size_t window = 9;
/// Measured frames before anything is decided: the first ones load and warm up.
constexpr std::size_t fewest = 5;
/// Frames in a row that must leave room for more before more is computed ...
constexpr int patience = 15;
/// ... within this share of the budget; less is computed as soon as the whole of it is exceeded.
constexpr double room_share = 0.85;
/// Frames without flow after which its old measurements count no more and it is tried again.
constexpr int forget_frames = 150;

bool is_flow_graph(const std::string& stage) {
  return std::find(std::begin(flow_graphs), std::end(flow_graphs), stage) != std::end(flow_graphs);
}

void check(bool holds, const char* option, const char* range) {
  if (!holds) {
    throw UserError(ErrorCode::invalid_argument,
                    std::string("flow option '") + option + "' must be " + range + "; leave it out for its default.");
  }
}

/// Why the flow starts anew on this frame, if it does.
const char* start_of(const std::optional<Size>& known, Size size, const std::optional<Change>& change,
                     const FlowOptions& options) {
  if (!known) {
    return "first frame";
  }
  if (*known != size) {
    return "the frame's size changed";
  }
  if (change && options.scene_cut && change->cut && change->mean > *options.scene_cut) {
    return "scene cut";
  }
  return nullptr;
}

}  // namespace

const char* flow_action_name(FlowAction action) noexcept {
  return action == FlowAction::run ? "run" : action == FlowAction::keep ? "keep" : "zero";
}

void check_flow_options(const FlowOptions& options) {
  const auto is_level = [](const std::optional<double>& value) {
    return !value || (std::isfinite(*value) && *value >= 0);
  };
  check(!options.iterations || *options.iterations >= 1, "iterations", "at least 1");
  check(options.every >= 1, "every", "at least 1");
  check(is_level(options.scene_cut), "scene_cut", "a number of grey levels, 0 or more");
  check(is_level(options.still), "still", "a number of grey levels, 0 or more");
  // Written so that NaN is refused as well.
  check(!options.hold_fps || (*options.hold_fps > 0 && *options.hold_fps <= 1000), "hold_fps",
        "above 0 and at most 1000");
  check(options.keep_frames >= 0, "keep_frames", "0 or more");
}

Deadline::Deadline(double fps, int iterations)
    : budget_(1e3 / fps), most_(iterations), level_(iterations), room_(iterations) {}

void Deadline::Window::add(double value) {
  values_.push_back(value);
  if (values_.size() > window) {
    values_.pop_front();
  }
}

double Deadline::Window::median_low() const {
  std::vector<double> sorted(values_.begin(), values_.end());
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>((sorted.size() - 1) / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

void Deadline::observe(const std::vector<Timing>& timings, int iterations) {
  double always = 0;
  double all = 0;
  std::optional<double> step;
  for (const Timing& timing : timings) {
    all += timing.milliseconds;
    if (!is_flow_graph(timing.stage)) {
      always += timing.milliseconds;
    } else if (timing.stage == flow_step) {
      step = timing.milliseconds;
    }
  }
  if (always <= 0 || (iterations > 0 && !step)) {
    return;
  }
  always_.add(always);
  if (iterations > 0) {
    once_.add((all - always - *step) / always);
    step_.add(*step / iterations / always);
  }
  without_ = iterations > 0 ? 0 : without_ + 1;
  if (without_ == forget_frames) {
    once_.clear();
    step_.clear();
  }
}

Allowance Deadline::allow() {
  if (always_.size() < fewest) {
    return {level_, false};
  }
  const int fits = affordable(budget_);
  const int fits_well = affordable(room_share * budget_);
  if (fits < level_) {
    level_ = fits;
    settle();
  } else if (fits_well > level_) {
    ++calm_;
    room_ = std::min(room_, fits_well);
    if (calm_ >= patience) {
      // Doubling: soon back where it was, and a first attempt is a cheap one.
      level_ = std::min(room_, std::max(1, 2 * level_));
      settle();
    }
  } else {
    settle();
  }
  return {level_, always_.median_low() > budget_};
}

void Deadline::settle() noexcept {
  calm_ = 0;
  room_ = most_;
}

int Deadline::affordable(double limit) const {
  const double always = always_.median_low();
  if (always > limit) {
    return 0;
  }
  if (step_.size() == 0) {
    return most_;
  }
  const double left = limit / always - 1 - once_.median_low();
  const double step = step_.median_low();
  if (left >= step * most_) {
    return most_;
  }
  return left > 0 ? static_cast<int>(left / step) : 0;
}

FlowPolicy::FlowPolicy(const FlowOptions& options, int iterations)
    : options_(options), iterations_(options.iterations.value_or(iterations)) {
  if (options.hold_fps) {
    deadline_.emplace(*options.hold_fps, iterations_);
  }
}

void FlowPolicy::reset() noexcept {
  scene_.reset();
  size_.reset();
  computed_ = false;
  encoded_ = false;
  since_ = 0;
  calm_ = 0;
}

FlowDecision FlowPolicy::decide(const std::uint8_t* image, Size input, Size size) {
  std::optional<Change> change;
  if (options_.scene_cut || options_.still) {
    change = scene_.look(image, input);
  }
  const Allowance allowed = deadline_ ? deadline_->allow() : Allowance{iterations_, false};
  const char* start = start_of(size_, size, change, options_);
  size_ = size;
  ++since_;
  FlowDecision decision = choose(start, allowed);
  encoded_ = decision.encode;
  return decision;
}

FlowDecision FlowPolicy::choose(const char* start, const Allowance& allowed) {
  if (start != nullptr) {
    scene_.mark();
    calm_ = 0;
    return zero(start, allowed);
  }
  if (options_.still && rests(*options_.still)) {
    return zero("nothing moves", allowed);
  }
  if (computed_ && since_ < options_.every) {
    // Features are read by the next frame's flow alone.
    const bool encode = since_ + 1 >= options_.every && allowed.iterations > 0;
    return {FlowAction::keep, "computed every " + std::to_string(options_.every) + " frames", 0, false, encode,
            allowed.late};
  }
  if (allowed.iterations == 0) {
    return skip(allowed.late ? "too slow even without flow" : "no time for flow", allowed);
  }
  if (!encoded_) {
    return skip("getting ready for flow", allowed);
  }
  return run(allowed);
}

void FlowPolicy::observe(const std::vector<Timing>& timings, const FlowDecision& decision) {
  if (deadline_) {
    deadline_->observe(timings, decision.iterations);
  }
}

FlowDecision FlowPolicy::run(const Allowance& allowed) {
  const bool warm = computed_ && options_.warm_start;
  computed_ = true;
  since_ = 0;
  scene_.mark();
  std::string reason = "due";
  if (allowed.iterations < iterations_) {
    reason = "time for " + std::to_string(allowed.iterations) + " of " + std::to_string(iterations_) + " updates";
  }
  return {FlowAction::run, reason, allowed.iterations, warm, true, false};
}

FlowDecision FlowPolicy::zero(const char* reason, const Allowance& allowed) {
  // Zero is no start for a warm one, and must not be kept once there is something to compute.
  computed_ = false;
  return {FlowAction::zero, reason, 0, false, allowed.iterations > 0, allowed.late};
}

FlowDecision FlowPolicy::skip(const char* reason, const Allowance& allowed) {
  if (!computed_ || since_ > options_.keep_frames) {
    return zero(reason, allowed);
  }
  return {FlowAction::keep, reason, 0, false, allowed.iterations > 0, allowed.late};
}

bool FlowPolicy::rests(double still) {
  const double threshold = still * (calm_ >= calm_frames ? restless : 1.0);
  calm_ = scene_.moved() <= threshold ? calm_ + 1 : 0;
  return calm_ >= calm_frames;
}

}  // namespace rvos_edge
