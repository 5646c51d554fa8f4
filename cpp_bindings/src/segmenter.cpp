#include "rvos_edge/segmenter.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <utility>

#include "adaptation.hpp"
#include "backends.hpp"
#include "fair_mutex.hpp"
#include "flow_policy.hpp"
#include "manifest.hpp"
#include "names.hpp"
#include "placement.hpp"
#include "postprocess.hpp"
#include "presence.hpp"
#include "resize.hpp"
#include "taught.hpp"
#include "text.hpp"

namespace rvos_edge {
namespace {

using Clock = std::chrono::steady_clock;
using Pairs = std::vector<std::pair<std::string, std::string>>;

/// Appends the milliseconds between laps.
class Stopwatch {
 public:
  explicit Stopwatch(std::vector<Timing>& timings) : timings_(timings) {}
  void lap(const char* stage) {
    const auto now = Clock::now();
    timings_.push_back({stage, std::chrono::duration<double, std::milli>(now - mark_).count()});
    mark_ = now;
  }
  /// Exclude the time since the last lap, which was measured elsewhere.
  void resume() { mark_ = Clock::now(); }

 private:
  std::vector<Timing>& timings_;
  Clock::time_point mark_ = Clock::now();
};

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

class Segmenter::Impl {
 public:
  Impl(const Bundle& bundle, std::unique_ptr<Backend> backend, const Options& options);

  void set_queries(const std::vector<std::string>& queries);
  void step(const ImageView& frame, Result& result);
  void reset();
  [[nodiscard]] std::vector<std::string> queries() const;
  [[nodiscard]] const Bundle& bundle() const noexcept { return bundle_; }
  [[nodiscard]] const std::string& backend_name() const noexcept { return backend_->name(); }
  [[nodiscard]] std::string backend_reason() const;
  [[nodiscard]] std::vector<std::string> check_queries(const std::vector<std::string>& queries) const;
  [[nodiscard]] float threshold() const;
  void set_threshold(float threshold);
  [[nodiscard]] std::optional<int> iterations() const;
  void set_iterations(int iterations);
  void set_keep_flow(bool keep);
  void set_adapt(Adapt adapt, bool background);

 private:
  void prepare_flow();
  void check_slots() const;
  void forget();
  void run_frame(const ImageView& frame, Result& result);
  void decide_presence(Result& result);
  void write_vectors();
  void apply_changes();
  [[nodiscard]] SeenFrame seen_frame();
  [[nodiscard]] const std::uint8_t* preprocess(const ImageView& frame);
  void run_graphs(const std::optional<FlowDecision>& decision, std::vector<Timing>& timings);
  void read_margins(Array<float>& margins);
  void work(const std::optional<FlowDecision>& decision, const Lap& lap);
  void answer(const Lap& lap);
  void work_flow(const FlowDecision& decision, const Lap& lap);
  void run_graph(const char* name, const Lap& lap);
  void swap_states(const Pairs& states);

  Bundle bundle_;
  // Destroyed after the graphs, which are bound to it.
  std::unique_ptr<Backend> backend_;
  Board& board_;
  FlowOptions flow_;
  std::map<std::string, std::unique_ptr<Graph>, std::less<>> graphs_;
  std::vector<std::string> vision_;
  std::vector<std::string> answer_;
  std::unique_ptr<TextEncoder> encoder_;
  Resizer resize_;
  /// The part of the network's input that shows the last frame.
  Region region_;
  /// A map of the whole input, of which a padded frame has a part.
  std::vector<float> map_;
  /// The network's input if the slot cannot be written in place.
  std::vector<std::uint8_t> image_;
  Postprocessor postprocess_;
  PresenceFilter presence_;
  bool keep_absent_;
  std::optional<FlowPolicy> policy_;
  Pairs step_states_;
  Pairs frame_states_;
  mutable FairMutex mutex_;
  AskedQueries asked_;
  /// Stacked language vectors of the queries.
  std::vector<HostTensor> vectors_;
  std::int64_t index_ = 0;
  std::unique_ptr<Adaptation> adaptation_;
};

Segmenter::Impl::Impl(const Bundle& bundle, std::unique_ptr<Backend> backend, const Options& options)
    : bundle_(bundle), backend_(std::move(backend)), board_(backend_->board()), flow_(options.flow),
      resize_(bundle.manifest().size), postprocess_(options.threshold), keep_absent_(options.keep_absent) {
  check_flow_options(flow_);
  check_threshold(options.threshold);
  const Manifest& manifest = bundle_.manifest();
  const bool use_flow = manifest.flow.has_value() && flow_.enabled;
  vision_ = manifest.vision_graphs();
  answer_ = manifest.answer_graphs();
  std::vector<std::string> names = vision_;
  if (use_flow) {
    names.insert(names.end(), std::begin(flow_graphs), std::end(flow_graphs));
  }
  names.insert(names.end(), answer_.begin(), answer_.end());
  for (const std::string& name : names) {
    graphs_[name] = backend_->load(name, bundle_.graph_path(name), manifest.graph(name));
  }
  encoder_ = std::make_unique<TextEncoder>(
      bundle_, backend_->load_host(bundle_.graph_path(text_graph), manifest.graph(text_graph)));
  check_slots();
  if (use_flow) {
    prepare_flow();
  }
}

void Segmenter::Impl::check_slots() const {
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

void Segmenter::Impl::prepare_flow() {
  const Manifest& manifest = bundle_.manifest();
  policy_.emplace(flow_, manifest.flow->iterations);
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

void Segmenter::Impl::set_queries(const std::vector<std::string>& queries) {
  AskedQueries asked = read_queries(queries, bundle_);
  encoder_->check_number(asked.sentences.size());
  std::vector<HostTensor> vectors = encoder_->encode(asked.sentences);
  put_taught(asked, vectors);
  const std::lock_guard<FairMutex> lock(mutex_);
  board_.resize(queries_symbol, static_cast<std::int64_t>(asked.labels.size()));
  asked_ = std::move(asked);
  vectors_ = std::move(vectors);
  write_vectors();
  presence_ = PresenceFilter(asked_.presence_shifts);
  if (adaptation_) {
    adaptation_->start(asked_, vectors_);
  }
}

void Segmenter::Impl::write_vectors() {
  for (const HostTensor& vector : vectors_) {
    if (board_.contains(vector.name)) {
      board_.write(vector.name, vector.data.data(), vector.dtype, vector.shape);
    }
  }
}

void Segmenter::Impl::apply_changes() {
  const std::map<std::size_t, Vectors> changes =
      adaptation_ ? adaptation_->changes() : std::map<std::size_t, Vectors>();
  for (const auto& [row, vectors] : changes) {
    put_row(vectors_, row, vectors);
  }
  if (!changes.empty()) {
    write_vectors();
  }
}

void Segmenter::Impl::set_adapt(Adapt adapt, bool background) {
  const Manifest& manifest = bundle_.manifest();
  const bool can = manifest.find(teach_graph) != nullptr && manifest.has_presence();
  const std::lock_guard<FairMutex> lock(mutex_);
  if (adaptation_) {
    adaptation_->reset();
    apply_changes();
    adaptation_.reset();
  }
  if (can && adapt != Adapt::off) {
    adaptation_ = std::make_unique<Adaptation>(bundle_, *backend_, *encoder_, adapt == Adapt::on, background);
    adaptation_->start(asked_, vectors_);
  }
}

SeenFrame Segmenter::Impl::seen_frame() {
  SeenFrame frame{{}, region_};
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

void Segmenter::Impl::step(const ImageView& frame, Result& result) {
  check_frame(frame);
  const std::lock_guard<FairMutex> lock(mutex_);
  if (asked_.labels.empty()) {
    throw UserError(ErrorCode::bad_query, "no queries are set; call set_queries before step.");
  }
  try {
    run_frame(frame, result);
  } catch (...) {
    // Half a frame leaves the states inconsistent.
    forget();
    throw;
  }
}

void Segmenter::Impl::reset() {
  const std::lock_guard<FairMutex> lock(mutex_);
  forget();
}

std::vector<std::string> Segmenter::Impl::queries() const {
  const std::lock_guard<FairMutex> lock(mutex_);
  return asked_.labels;
}

std::string Segmenter::Impl::backend_reason() const {
  const std::lock_guard<FairMutex> lock(mutex_);
  return backend_->reason();
}

std::vector<std::string> Segmenter::Impl::check_queries(const std::vector<std::string>& queries) const {
  AskedQueries asked = read_queries(queries, bundle_);
  static_cast<void>(encoder_->check(asked.sentences));
  return std::move(asked.labels);
}

float Segmenter::Impl::threshold() const {
  const std::lock_guard<FairMutex> lock(mutex_);
  return postprocess_.threshold();
}

void Segmenter::Impl::set_threshold(float threshold) {
  check_threshold(threshold);
  const std::lock_guard<FairMutex> lock(mutex_);
  postprocess_.set_threshold(threshold);
}

std::optional<int> Segmenter::Impl::iterations() const {
  const std::lock_guard<FairMutex> lock(mutex_);
  return policy_ ? std::optional(policy_->iterations()) : std::nullopt;
}

void Segmenter::Impl::set_iterations(int iterations) {
  if (!policy_) {
    throw UserError(ErrorCode::invalid_argument, "there is no flow to set iterations of; open a bundle that has flow.");
  }
  FlowOptions wanted;
  wanted.iterations = iterations;
  check_flow_options(wanted);
  const std::lock_guard<FairMutex> lock(mutex_);
  policy_->set_iterations(iterations);
}

void Segmenter::Impl::set_keep_flow(bool keep) {
  const std::lock_guard<FairMutex> lock(mutex_);
  flow_.keep_flow = keep;
}

void Segmenter::Impl::forget() {
  index_ = 0;
  presence_.reset();
  if (adaptation_) {
    adaptation_->reset();
  }
  if (policy_) {
    policy_->reset();
  }
}

const std::uint8_t* Segmenter::Impl::preprocess(const ImageView& frame) {
  const Size size = bundle_.manifest().size;
  Buffer& slot = board_.buffer(frame_input);
  auto* image = static_cast<std::uint8_t*>(slot.host());
  if (image == nullptr) {
    image_.resize(slot.bytes());
    image = image_.data();
  }
  region_ = place({frame.height, frame.width}, size);
  const Size extent{region_.height, region_.width};
  if (extent != resize_.target()) {
    resize_ = Resizer(extent);
  }
  if (extent != size) {
    fill_bars(image, size);
  }
  const std::size_t pitch = 3 * static_cast<std::size_t>(size.width);
  const auto top = static_cast<std::size_t>(region_.top);
  const auto left = static_cast<std::size_t>(region_.left);
  resize_(frame, image + top * pitch + 3 * left, pitch);
  if (slot.host() == nullptr) {
    slot.write(image);
  }
  return image;
}

void Segmenter::Impl::run_graphs(const std::optional<FlowDecision>& decision, std::vector<Timing>& timings) {
  FrameKey key;
  if (decision) {
    key = {decision->action, decision->warm, decision->iterations, decision->encode, FrameKey::Part::whole};
  }
  const Size size = bundle_.manifest().size;
  const bool padded = Size{region_.height, region_.width} != size;
  if (!padded || !decision || decision->action != FlowAction::run) {
    backend_->frame(key, [this, &decision](const Lap& lap) {
      work(decision, lap);
      answer(lap);
    });
    return;
  }
  // The flow of the bars is filled in on the host, between the graphs.
  key.part = FrameKey::Part::until_flow;
  backend_->frame(key, [this, &decision](const Lap& lap) { work(decision, lap); });
  const Shape shape = board_.shape(flow_output);
  map_.resize(count(shape));
  board_.read_float(flow_output, map_.data());
  backend_->timings(timings);
  const Size grid{static_cast<int>(shape[2]), static_cast<int>(shape[3])};
  fill_padding(map_, grid, scale_region(region_, size, grid));
  board_.write(flow_output, map_.data(), DType::float32, shape);
  key = {};
  key.part = FrameKey::Part::answer;
  backend_->frame(key, [this](const Lap& lap) { answer(lap); });
}

void Segmenter::Impl::read_margins(Array<float>& margins) {
  const Shape& shape = board_.shape(margin_output);
  const Size size = bundle_.manifest().size;
  const Size grid{static_cast<int>(shape[1]), static_cast<int>(shape[2])};
  const Region region = scale_region(region_, size, grid);
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

void Segmenter::Impl::run_frame(const ImageView& frame, Result& result) {
  const Size size{frame.height, frame.width};
  result.timings.clear();
  Stopwatch clock(result.timings);
  apply_changes();
  const std::uint8_t* image = preprocess(frame);
  std::optional<FlowDecision>& decision = result.decision;
  decision.reset();
  if (policy_) {
    decision = policy_->decide(image, bundle_.manifest().size, size);
  }
  clock.lap("preprocess");
  run_graphs(decision, result.timings);
  // Copied, because the next frame overwrites the board's buffers.
  read_margins(result.margins);
  if (flow_.keep_flow && board_.contains(flow_output)) {
    const Shape& shape = board_.shape(flow_output);
    result.flow.resize({shape.begin() + 1, shape.end()});
    board_.read_float(flow_output, result.flow.data());
  } else {
    result.flow = {};
  }
  backend_->timings(result.timings);
  clock.resume();
  postprocess_.masks(result.margins, size, result.masks);
  postprocess_.scores(result.margins, result.scores);
  decide_presence(result);
  clock.lap("postprocess");
  if (policy_) {
    policy_->observe(result.timings, *decision);
  }
  result.queries = asked_.labels;
  result.flow_used = decision && decision->action == FlowAction::run;
  result.index = index_++;
  result.adapted.resize(result.present.shape());
  std::fill(result.adapted.begin(), result.adapted.end(), std::uint8_t{0});
  if (adaptation_) {
    adaptation_->observe(result, [this] { return seen_frame(); });
    clock.lap("adapt");
  }
}

void Segmenter::Impl::decide_presence(Result& result) {
  const Shape queries = {result.masks.shape()[0]};
  const std::size_t pixels = count({result.masks.shape()[1], result.masks.shape()[2]});
  result.presence.resize(queries);
  result.present.resize(queries);
  const bool told = bundle_.manifest().has_presence();
  if (told) {
    board_.read_float(presence_output, result.presence.data());
    presence_.update(result.presence, result.present);
  }
  for (std::size_t query = 0; query < result.presence.size(); ++query) {
    std::uint8_t* const mask = result.masks.data() + query * pixels;
    if (!told) {
      result.presence[query] = 1;
      result.present[query] = std::find(mask, mask + pixels, 1) == mask + pixels ? 0 : 1;
    } else if (result.present[query] == 0 && !keep_absent_) {
      std::fill_n(mask, pixels, std::uint8_t{0});
      result.scores[query] = 0;
    }
  }
}

void Segmenter::Impl::work(const std::optional<FlowDecision>& decision, const Lap& lap) {
  for (const std::string& name : vision_) {
    run_graph(name.c_str(), lap);
  }
  if (decision) {
    work_flow(*decision, lap);
  }
}

void Segmenter::Impl::answer(const Lap& lap) {
  for (const std::string& name : answer_) {
    run_graph(name.c_str(), lap);
  }
}

void Segmenter::Impl::work_flow(const FlowDecision& decision, const Lap& lap) {
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

void Segmenter::Impl::swap_states(const Pairs& states) {
  for (const auto& [state, source] : states) {
    board_.swap(state, source);
  }
}

void Segmenter::Impl::run_graph(const char* name, const Lap& lap) {
  graphs_.find(name)->second->run();
  lap(name);
}

Segmenter::Segmenter(const Bundle& bundle, const Options& options) {
  // A replayed frame has no times by stage, which `hold_fps` needs.
  BackendOptions start{options.device, options.threads, !options.flow.hold_fps, {}};
  if (options.backend != "auto") {
    impl_ = std::make_unique<Impl>(bundle, open_backend(options.backend, bundle, start), options);
    return;
  }
  const std::vector<Candidate> candidates = ranked_backends(bundle, options.device);
  std::string failures;
  for (const Candidate& candidate : candidates) {
    start.reason = failures + candidate.reason;
    try {
      impl_ = std::make_unique<Impl>(bundle, open_backend(candidate.name, bundle, start), options);
      return;
    } catch (const UserError& error) {
      // The last candidate's error is the user's.
      const bool elsewhere = error.code() == ErrorCode::engine || error.code() == ErrorCode::unsupported_backend;
      if (!elsewhere || &candidate == &candidates.back()) {
        throw;
      }
      std::string why = error.what();
      why.erase(why.find_last_not_of('.') + 1);
      failures += candidate.name + " cannot be used (" + why + ") and ";
    }
  }
}

Segmenter::Segmenter(const Bundle& bundle, std::unique_ptr<Backend> backend, const Options& options)
    : impl_(std::make_unique<Impl>(bundle, std::move(backend), options)) {}

Segmenter::Segmenter(Segmenter&&) noexcept = default;
Segmenter& Segmenter::operator=(Segmenter&&) noexcept = default;
Segmenter::~Segmenter() = default;

void Segmenter::set_queries(const std::vector<std::string>& queries) {
  impl_->set_queries(queries);
}

Result Segmenter::step(const ImageView& frame) {
  Result result;
  impl_->step(frame, result);
  return result;
}

void Segmenter::step(const ImageView& frame, Result& result) {
  impl_->step(frame, result);
}

void Segmenter::reset() {
  impl_->reset();
}

std::vector<std::string> Segmenter::queries() const {
  return impl_->queries();
}

const Bundle& Segmenter::bundle() const noexcept {
  return impl_->bundle();
}

const std::string& Segmenter::backend_name() const noexcept {
  return impl_->backend_name();
}

std::string Segmenter::backend_reason() const {
  return impl_->backend_reason();
}

std::vector<std::string> Segmenter::check_queries(const std::vector<std::string>& queries) const {
  return impl_->check_queries(queries);
}

float Segmenter::threshold() const {
  return impl_->threshold();
}

void Segmenter::set_threshold(float threshold) {
  impl_->set_threshold(threshold);
}

std::optional<int> Segmenter::iterations() const {
  return impl_->iterations();
}

void Segmenter::set_iterations(int iterations) {
  impl_->set_iterations(iterations);
}

void Segmenter::set_keep_flow(bool keep) {
  impl_->set_keep_flow(keep);
}

void Segmenter::set_adapt(Adapt adapt, bool background) {
  impl_->set_adapt(adapt, background);
}

}  // namespace rvos_edge
