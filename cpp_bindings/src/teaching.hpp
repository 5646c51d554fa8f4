/// @file
/// Queries learned from frames, by the bundle's graph `teach`; rvos_edge/teaching.py does the same.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "placement.hpp"
#include "rvos_edge/engine.hpp"

namespace rvos_edge {

/// lang1, lang2, ... of one query.
using Vectors = std::map<std::string, std::vector<float>>;
/// float32 arrays by name: the inputs of `gating` for one frame other than the language vectors.
using Features = std::map<std::string, HostTensor>;

/// A frame to learn from, and the part of the network's input that shows it.
struct SeenFrame {
  Features features;
  Region place;
};

/// A float32 array.
[[nodiscard]] HostTensor make_tensor(const std::string& name, Shape shape, const std::vector<float>& values);
/// One row of stacked language vectors.
[[nodiscard]] Vectors row_of(const std::vector<HostTensor>& stacked, std::size_t row);
/// Write one query's vectors into its row of stacked ones; vectors of other names or lengths are left out.
void put_row(std::vector<HostTensor>& stacked, std::size_t row, const Vectors& vectors);

/// The graphs `teach` and `gating` on the host.
class Teacher {
 public:
  /// @throws UserError  A graph cannot be loaded.
  Teacher(const Bundle& bundle, Backend& backend);

  /// Teach vectors by the mean answer of several wordings on frames, with Adam, a frame a step in turn.
  /// @param wordings  Vectors of the wordings.
  /// @param vectors   The vectors to start from.
  /// @param stopped   Set by another thread to give up.
  [[nodiscard]] Vectors learn(std::vector<SeenFrame> frames, const std::vector<Vectors>& wordings, Vectors vectors,
                              const std::atomic<bool>& stopped);

 private:
  using Outputs = std::map<std::string, std::vector<float>>;
  [[nodiscard]] static Outputs run(HostGraph& graph, const GraphSpec& spec, const Features& features,
                                   const Vectors& vectors);
  /// Add what is wanted on a frame to its features: `target` and `weight`.
  void add_target(SeenFrame& frame, const std::vector<Vectors>& wordings);

  GraphSpec teach_spec_;
  GraphSpec gating_spec_;
  std::unique_ptr<HostGraph> teach_;
  std::unique_ptr<HostGraph> gating_;
  Size input_;
};

}  // namespace rvos_edge
