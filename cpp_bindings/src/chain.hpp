/// @file
/// The graphs of a bundle, chained over the frames of a video by the board that joins them.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "placement.hpp"
#include "rvos_edge/engine.hpp"
#include "rvos_edge/segmenter.hpp"
#include "teaching.hpp"

namespace rvos_edge {

/// Runs the graphs of a frame in their order; `image` is on the board before. A region is the part of the network's
/// input that shows the frame.
class Chain {
 public:
  /// @param bundle   Outlives the chain, as `backend` does.
  /// @param flow     Load the graphs of the flow.
  /// @throws UserError  A graph cannot be loaded, or a tensor is not of the form that a bundle has.
  Chain(const Bundle& bundle, Backend& backend, bool flow);

  /// Run a frame; the times of graphs that a change of the flow parts from the others are added to `timings`.
  void run(const std::optional<FlowDecision>& decision, const Region& region, std::vector<Timing>& timings);
  /// Copy the margins of the frame without the bars around it, float32 [Q,h,w].
  void read_margins(const Region& shown, Array<float>& margins);
  /// Copy the features of the frame that was run last.
  [[nodiscard]] SeenFrame seen_frame(const Region& region);

 private:
  using Pairs = std::vector<std::pair<std::string, std::string>>;

  void check_slots() const;
  void prepare_flow();
  void work(const std::optional<FlowDecision>& decision, const Lap& lap);
  void answer(const Lap& lap);
  void work_flow(const FlowDecision& decision, const Lap& lap);
  void run_graph(const char* name, const Lap& lap);
  void swap_states(const Pairs& states);

  const Bundle& bundle_;
  Backend& backend_;
  Board& board_;
  std::map<std::string, std::unique_ptr<Graph>, std::less<>> graphs_;
  std::vector<std::string> vision_;
  std::vector<std::string> answer_;
  Pairs step_states_;
  Pairs frame_states_;
  /// A map of the whole input, of which a padded frame has a part.
  std::vector<float> map_;
};

}  // namespace rvos_edge
