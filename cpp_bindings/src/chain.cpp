#include "chain.hpp"

#include <algorithm>
#include <utility>

#include "manifest.hpp"
#include "names.hpp"

namespace rvos_edge {
namespace {

const TensorSpec* find_tensor(const std::vector<TensorSpec>& specs, const std::string& name) {
  const auto found = std::find_if(specs.begin(), specs.end(), [&name](const TensorSpec& s) { return s.name == name; });
  return found == specs.end() ? nullptr : &*found;
}

bool has_rows_per_query(const TensorSpec& spec) {
  return !spec.shape.empty() && spec.shape.front().symbol == queries_symbol;
}

bool is_floating(DType dtype) noexcept {
  return dtype == DType::float32 || dtype == DType::float16;
}

/// float32 [1,2,h,w]: x (column) and y (row) of every position.
std::vector<float> identity_grid(const Shape& shape) {
  std::vector<float> grid(count(shape));
  const auto height = static_cast<std::size_t>(shape[2]);
  const auto width = static_cast<std::size_t>(shape[3]);
  for (std::size_t y = 0; y < height; ++y) {
    for (std::size_t x = 0; x < width; ++x) {
      grid[y * width + x] = static_cast<float>(x);
      grid[(height + y) * width + x] = static_cast<float>(y);
    }
  }
  return grid;
}

}  // namespace

Chain::Chain(const Bundle& bundle, Backend& backend, bool flow)
    : bundle_(bundle), backend_(backend), board_(backend.board()) {
  const Manifest& manifest = bundle_.manifest();
  vision_ = manifest.vision_graphs();
  answer_ = manifest.answer_graphs();
  std::vector<std::string> names = vision_;
  if (flow) {
    names.insert(names.end(), std::begin(flow_graphs), std::end(flow_graphs));
  }
  names.insert(names.end(), answer_.begin(), answer_.end());
  for (const std::string& name : names) {
    graphs_[name] = backend_.load(name, bundle_.graph_path(name), manifest.graph(name));
  }
  check_slots();
  if (flow) {
    prepare_flow();
  }
}

void Chain::check_slots() const {
  // What the wiring leaves open, and this code relies on.
  const Manifest& manifest = bundle_.manifest();
  const auto refuse = [this](const char* tensor) {
    throw UserError(ErrorCode::bad_bundle, path_text(bundle_.path()) + ": tensor '" + tensor +
                                               "' is not of the dtype and shape that a bundle has; export it again.");
  };
  const Shape image = {manifest.size.height, manifest.size.width, 3};
  if (!board_.contains(frame_input) || board_.shape(frame_input) != image ||
      board_.buffer(frame_input).dtype() != DType::uint8) {
    refuse(frame_input);
  }
  const TensorSpec* margin = find_tensor(manifest.graph(answer_.back()).outputs, margin_output);
  if (margin == nullptr || !has_rows_per_query(*margin) || margin->shape.size() != 3 || !is_floating(margin->dtype)) {
    refuse(margin_output);
  }
  const TensorSpec* presence = find_tensor(manifest.graph(gating_graph).outputs, presence_output);
  if (presence != nullptr &&
      (!has_rows_per_query(*presence) || presence->shape.size() != 1 || !is_floating(presence->dtype))) {
    refuse(presence_output);
  }
  for (const TensorSpec& vector : manifest.graph(text_graph).outputs) {
    if (!has_rows_per_query(vector) || !is_floating(vector.dtype)) {
      refuse(vector.name.c_str());
    }
  }
  const bool has_flow = manifest.flow.has_value() && board_.contains(flow_output);
  if (has_flow && (board_.shape(flow_output).size() != 4 || !is_floating(board_.buffer(flow_output).dtype()))) {
    refuse(flow_output);
  }
}

void Chain::prepare_flow() {
  const Manifest& manifest = bundle_.manifest();
  const GraphSpec& step = manifest.graph(flow_step);
  const TensorSpec* coords = find_tensor(step.inputs, flow_coords);
  if (coords == nullptr || coords->shape.size() != 4 || coords->shape[1] != Dim{2, {}} || !is_floating(coords->dtype)) {
    throw UserError(ErrorCode::bad_bundle, path_text(bundle_.path()) + ": input 'coords' of graph 'flow_step' is not " +
                                               "[1,2,h,w]; export it again.");
  }
  TensorSpec grid = *coords;
  grid.name = flow_grid;
  board_.declare(grid);
  const Shape& shape = board_.shape(flow_grid);
  board_.write(flow_grid, identity_grid(shape).data(), DType::float32, shape);
  for (const auto& pair : manifest.states) {
    (find_tensor(step.outputs, pair.second) != nullptr ? step_states_ : frame_states_).push_back(pair);
  }
}

void Chain::run(const std::optional<FlowDecision>& decision, const Region& region, std::vector<Timing>& timings) {
  FrameKey key;
  if (decision) {
    key = {decision->action, decision->warm, decision->iterations, decision->encode, FrameKey::Part::whole};
  }
  const Size size = bundle_.manifest().size;
  const bool padded = Size{region.height, region.width} != size;
  if (!padded || !decision || decision->action != FlowAction::run) {
    backend_.frame(key, [this, &decision](const Lap& lap) {
      work(decision, lap);
      answer(lap);
    });
    return;
  }
  // The flow of the bars is filled in on the host, between the graphs.
  key.part = FrameKey::Part::until_flow;
  backend_.frame(key, [this, &decision](const Lap& lap) { work(decision, lap); });
  const Shape shape = board_.shape(flow_output);
  map_.resize(count(shape));
  board_.read_float(flow_output, map_.data());
  backend_.timings(timings);
  const Size grid{static_cast<int>(shape[2]), static_cast<int>(shape[3])};
  fill_padding(map_, grid, scale_region(region, size, grid));
  board_.write(flow_output, map_.data(), DType::float32, shape);
  key = {};
  key.part = FrameKey::Part::answer;
  backend_.frame(key, [this](const Lap& lap) { answer(lap); });
}

void Chain::read_margins(const Region& shown, Array<float>& margins) {
  const Shape& shape = board_.shape(margin_output);
  const Size size = bundle_.manifest().size;
  const Size grid{static_cast<int>(shape[1]), static_cast<int>(shape[2])};
  const Region region = scale_region(shown, size, grid);
  margins.resize({shape[0], region.height, region.width});
  if (Size{region.height, region.width} == grid) {
    board_.read_float(margin_output, margins.data());
    return;
  }
  map_.resize(count(shape));
  board_.read_float(margin_output, map_.data());
  float* target = margins.data();
  for (std::int64_t query = 0; query < shape[0]; ++query) {
    for (int row = 0; row < region.height; ++row, target += region.width) {
      const std::int64_t start = (query * grid.height + region.top + row) * grid.width + region.left;
      std::copy_n(map_.begin() + start, region.width, target);
    }
  }
}

SeenFrame Chain::seen_frame(const Region& region) {
  SeenFrame frame{{}, region};
  for (const TensorSpec& spec : bundle_.manifest().graph(gating_graph).inputs) {
    if (!has_rows_per_query(spec)) {
      const Shape& shape = board_.shape(spec.name);
      std::vector<float> values(count(shape));
      board_.read_float(spec.name, values.data());
      frame.features[spec.name] = make_tensor(spec.name, shape, values);
    }
  }
  return frame;
}

void Chain::work(const std::optional<FlowDecision>& decision, const Lap& lap) {
  for (const std::string& name : vision_) {
    run_graph(name.c_str(), lap);
  }
  if (decision) {
    work_flow(*decision, lap);
  }
}

void Chain::answer(const Lap& lap) {
  for (const std::string& name : answer_) {
    run_graph(name.c_str(), lap);
  }
}

void Chain::work_flow(const FlowDecision& decision, const Lap& lap) {
  if (decision.encode) {
    run_graph(flow_encode, lap);
  }
  if (decision.action == FlowAction::run) {
    run_graph(flow_context, lap);
    if (!decision.warm) {
      board_.copy(flow_grid, flow_coords);
    }
    Graph& update = *graphs_.find(flow_step)->second;
    for (int i = 0; i < decision.iterations; ++i) {
      update.run();
      swap_states(step_states_);
    }
    lap(flow_step);
    run_graph(flow_up, lap);
  } else if (decision.action == FlowAction::zero) {
    board_.zero(flow_output);
  }
  if (decision.encode) {
    // The next frame reads this frame's features.
    swap_states(frame_states_);
  }
}

void Chain::swap_states(const Pairs& states) {
  for (const auto& [state, source] : states) {
    board_.swap(state, source);
  }
}

void Chain::run_graph(const char* name, const Lap& lap) {
  graphs_.find(name)->second->run();
  lap(name);
}

}  // namespace rvos_edge
