/// @file
/// Presence of queries over time: smoothed, then decided with hysteresis. rvos_edge/presence.py does the same.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "rvos_edge/image.hpp"

namespace rvos_edge {

/// Filters the probabilities that the queries' objects are in the frame.
class PresenceFilter {
 public:
  /// @param shifts  Added to the logits, one for each query.
  explicit PresenceFilter(std::vector<double> shifts = {}) : shifts_(std::move(shifts)) {}

  /// Forget the video.
  void reset() noexcept { logits_.clear(); }

  /// Take the next frame's probabilities.
  /// @param presence  float32 [Q] in 0 to 1; replaced by the smoothed probabilities.
  /// @param present   Becomes uint8 [Q] of 0 and 1.
  void update(Array<float>& presence, Array<std::uint8_t>& present) {
    const bool first = logits_.size() != presence.size();
    logits_.resize(presence.size(), 0.0);
    shifts_.resize(presence.size(), 0.0);
    present_.resize(presence.size(), false);
    present.resize(presence.shape());
    for (std::size_t query = 0; query < presence.size(); ++query) {
      const double chance = std::clamp(static_cast<double>(presence[query]), surest, 1 - surest);
      const double logit = std::log(chance / (1 - chance)) + shifts_[query];
      logits_[query] = first ? logit : newest * logit + (1 - newest) * logits_[query];
      const double smooth = 1 / (1 + std::exp(-logits_[query]));
      present_[query] = smooth >= (!first && present_[query] ? leave : enter);
      presence[query] = static_cast<float>(smooth);
      present[query] = present_[query] ? 1 : 0;
    }
  }

 private:
  /// Weight of the newest frame in the mean of logits.
  static constexpr double newest = 0.4;
  /// A query becomes present at the first probability and absent below the second.
  static constexpr double enter = 0.2;
  static constexpr double leave = 0.1;
  /// Probabilities are clipped here, so that one frame does not decide for seconds.
  static constexpr double surest = 1e-4;

  std::vector<double> shifts_;
  std::vector<double> logits_;
  std::vector<bool> present_;
};

}  // namespace rvos_edge
