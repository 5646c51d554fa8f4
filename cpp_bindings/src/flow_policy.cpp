#include "flow_policy.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>

#include "flow_constants.hpp"
#include "names.hpp"
#include "rvos_edge/error.hpp"

namespace rvos_edge {
namespace {

namespace constants = flow_constants;

bool is_flow_graph(const std::string& stage) {
  return std::find(std::begin(flow_graphs), std::end(flow_graphs), stage) != std::end(flow_graphs);
}

void check(bool holds, const char* option, const char* range) {
  if (!holds) {
    throw UserError(ErrorCode::invalid_argument,
                    std::string("flow option '") + option + "' must be " + range + "; leave it out for its default.");
  }
}

/// Reason to start the flow anew on this frame, or null.
const char* start_of(const std::optional<Size>& known, Size size, const std::optional<Change>& change) {
  if (!known) {
    return "first frame";
  }
  if (*known != size) {
    return "the frame's size changed";
  }
  if (change && change->cut && change->mean > constants::scene_cut) {
    return "scene cut";
  }
  return nullptr;
}

}  // namespace

const char* flow_action_name(FlowAction action) noexcept {
  return action == FlowAction::run ? "run" : action == FlowAction::keep ? "keep" : "zero";
}

void check_flow_options(const FlowOptions& options) {
  check(!options.iterations || (*options.iterations >= 1 && *options.iterations <= constants::max_iterations),
        "iterations", "from 1 to 100");
  check(options.every >= 1, "every", "at least 1");
  check(!options.still || (std::isfinite(*options.still) && *options.still >= 0), "still",
        "a number of grey levels, 0 or more");
  // Written so that NaN is refused as well.
  check(!options.hold_fps || (*options.hold_fps > 0 && *options.hold_fps <= 1000), "hold_fps",
        "above 0 and at most 1000");
}

FrameBudget::FrameBudget(double fps, int iterations)
    : budget_(1e3 / fps), most_(iterations), level_(iterations), room_(iterations) {}

void FrameBudget::set_most(int iterations) noexcept {
  level_ = level_ == most_ ? iterations : std::min(level_, iterations);
  most_ = iterations;
  settle();
}

void FrameBudget::Window::add(double value) {
  values_.push_back(value);
  if (values_.size() > constants::window) {
    values_.pop_front();
  }
}

double FrameBudget::Window::median_low() const {
  std::vector<double> sorted(values_.begin(), values_.end());
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>((sorted.size() - 1) / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

void FrameBudget::observe(const std::vector<Timing>& timings, int iterations) {
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
  if (without_ == constants::forget) {
    once_.clear();
    step_.clear();
  }
}

Allowance FrameBudget::allow() {
  if (always_.size() < constants::fewest) {
    return {level_, false};
  }
  const int fits = affordable(budget_);
  const int fits_well = affordable(constants::room * budget_);
  if (fits < level_) {
    level_ = fits;
    settle();
  } else if (fits_well > level_) {
    ++calm_;
    room_ = std::min(room_, fits_well);
    if (calm_ >= constants::patience) {
      // Doubling: a first attempt is cheap, and the old level is soon reached again.
      level_ = std::min(room_, std::max(1, 2 * level_));
      settle();
    }
  } else {
    settle();
  }
  return {level_, always_.median_low() > budget_};
}

void FrameBudget::settle() noexcept {
  calm_ = 0;
  room_ = most_;
}

int FrameBudget::affordable(double limit) const {
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
    budget_.emplace(*options.hold_fps, iterations_);
  }
}

void FlowPolicy::set_iterations(int iterations) noexcept {
  iterations_ = iterations;
  if (budget_) {
    budget_->set_most(iterations);
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
  const std::optional<Change> change = scene_.look(image, input);
  const Allowance allowed = budget_ ? budget_->allow() : Allowance{iterations_, false};
  const char* start = start_of(size_, size, change);
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
    // Only the next frame's flow reads the features.
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
  if (budget_) {
    budget_->observe(timings, decision.iterations);
  }
}

FlowDecision FlowPolicy::run(const Allowance& allowed) {
  const bool warm = computed_;
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
  // A zeroed flow is not a valid warm start, and must not be kept once there is something to compute.
  computed_ = false;
  return {FlowAction::zero, reason, 0, false, allowed.iterations > 0, allowed.late};
}

FlowDecision FlowPolicy::skip(const char* reason, const Allowance& allowed) {
  if (!computed_ || since_ > constants::keep_frames) {
    return zero(reason, allowed);
  }
  return {FlowAction::keep, reason, 0, false, allowed.iterations > 0, allowed.late};
}

bool FlowPolicy::rests(double still) {
  const double threshold = still * (calm_ >= constants::calm_frames ? constants::restless : 1.0);
  calm_ = scene_.moved() <= threshold ? calm_ + 1 : 0;
  return calm_ >= constants::calm_frames;
}

}  // namespace rvos_edge
