#include "rvos_edge/segmenter.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <utility>

#include "adaptation.hpp"
#include "backends.hpp"
#include "chain.hpp"
#include "fair_mutex.hpp"
#include "flow_policy.hpp"
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
using Lock = std::lock_guard<FairMutex>;

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

/// The options of the flow, once all options are known to be in range.
const FlowOptions& checked(const Options& options) {
  check_flow_options(options.flow);
  check_threshold(options.threshold);
  return options.flow;
}

}  // namespace

struct Segmenter::Impl {
  Impl(const Bundle& opened, std::unique_ptr<Backend> given, const Options& options);

  void forget();
  void run_frame(const ImageView& frame, Result& result);
  void decide_presence(Result& result);
  void write_vectors();
  void apply_changes();
  [[nodiscard]] const std::uint8_t* preprocess(const ImageView& frame);

  Bundle bundle_;
  // Destroyed after the graphs, which are bound to it.
  std::unique_ptr<Backend> backend_;
  Board& board_;
  FlowOptions flow_;
  bool uses_flow_;
  Chain chain_;
  std::unique_ptr<TextEncoder> encoder_;
  Resizer resize_;
  /// The part of the network's input that shows the last frame.
  Region region_;
  /// The network's input if the slot cannot be written in place.
  std::vector<std::uint8_t> image_;
  Postprocessor postprocess_;
  PresenceFilter presence_;
  bool keep_absent_;
  std::optional<FlowPolicy> policy_;
  mutable FairMutex mutex_;
  AskedQueries asked_;
  /// Stacked language vectors of the queries.
  std::vector<HostTensor> vectors_;
  std::int64_t index_ = 0;
  std::unique_ptr<Adaptation> adaptation_;
};

Segmenter::Impl::Impl(const Bundle& opened, std::unique_ptr<Backend> given, const Options& options)
    : bundle_(opened), backend_(std::move(given)), board_(backend_->board()), flow_(checked(options)),
      uses_flow_(flow_.enabled && bundle_.manifest().flow), chain_(bundle_, *backend_, uses_flow_),
      resize_(bundle_.manifest().size), postprocess_(options.threshold), keep_absent_(options.keep_absent) {
  encoder_ = std::make_unique<TextEncoder>(
      bundle_, backend_->load_host(bundle_.graph_path(text_graph), bundle_.manifest().graph(text_graph)));
  if (uses_flow_) {
    policy_.emplace(flow_, bundle_.manifest().flow->iterations);
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
  chain_.run(decision, region_, result.timings);
  // Copied, because the next frame overwrites the board's buffers.
  chain_.read_margins(region_, result.margins);
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
    adaptation_->observe(result, [this] { return chain_.seen_frame(region_); });
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
  Impl& own = *impl_;
  AskedQueries asked = read_queries(queries, own.bundle_);
  own.encoder_->check_number(asked.sentences.size());
  std::vector<HostTensor> vectors = own.encoder_->encode(asked.sentences);
  put_taught(asked, vectors);
  const Lock lock(own.mutex_);
  own.board_.resize(queries_symbol, static_cast<std::int64_t>(asked.labels.size()));
  own.asked_ = std::move(asked);
  own.vectors_ = std::move(vectors);
  own.write_vectors();
  own.presence_ = PresenceFilter(own.asked_.presence_shifts);
  if (own.adaptation_) {
    own.adaptation_->start(own.asked_, own.vectors_);
  }
}

std::vector<std::string> Segmenter::check_queries(const std::vector<std::string>& queries) const {
  AskedQueries asked = read_queries(queries, impl_->bundle_);
  static_cast<void>(impl_->encoder_->check(asked.sentences));
  return std::move(asked.labels);
}

void Segmenter::set_adapt(Adapt adapt, bool background) {
  Impl& own = *impl_;
  const Manifest& manifest = own.bundle_.manifest();
  const bool can = manifest.find(teach_graph) != nullptr && manifest.has_presence();
  const Lock lock(own.mutex_);
  if (own.adaptation_) {
    own.adaptation_->reset();
    own.apply_changes();
    own.adaptation_.reset();
  }
  if (can && adapt != Adapt::off) {
    const bool again = adapt == Adapt::on;
    own.adaptation_ = std::make_unique<Adaptation>(own.bundle_, *own.backend_, *own.encoder_, again, background);
    own.adaptation_->start(own.asked_, own.vectors_);
  }
}

Result Segmenter::step(const ImageView& frame) {
  Result result;
  step(frame, result);
  return result;
}

void Segmenter::step(const ImageView& frame, Result& result) {
  check_frame(frame);
  const Lock lock(impl_->mutex_);
  if (impl_->asked_.labels.empty()) {
    throw UserError(ErrorCode::bad_query, "no queries are set; call set_queries before step.");
  }
  try {
    impl_->run_frame(frame, result);
  } catch (...) {
    // Half a frame leaves the states inconsistent.
    impl_->forget();
    throw;
  }
}

void Segmenter::reset() {
  const Lock lock(impl_->mutex_);
  impl_->forget();
}

std::vector<std::string> Segmenter::queries() const {
  const Lock lock(impl_->mutex_);
  return impl_->asked_.labels;
}

const Bundle& Segmenter::bundle() const noexcept {
  return impl_->bundle_;
}

const std::string& Segmenter::backend_name() const noexcept {
  return impl_->backend_->name();
}

std::string Segmenter::backend_reason() const {
  const Lock lock(impl_->mutex_);
  return impl_->backend_->reason();
}

float Segmenter::threshold() const {
  const Lock lock(impl_->mutex_);
  return impl_->postprocess_.threshold();
}

void Segmenter::set_threshold(float threshold) {
  check_threshold(threshold);
  const Lock lock(impl_->mutex_);
  impl_->postprocess_.set_threshold(threshold);
}

std::optional<int> Segmenter::iterations() const {
  const Lock lock(impl_->mutex_);
  return impl_->policy_ ? std::optional(impl_->policy_->iterations()) : std::nullopt;
}

void Segmenter::set_iterations(int iterations) {
  if (!impl_->policy_) {
    throw UserError(ErrorCode::invalid_argument, "there is no flow to set iterations of; open a bundle that has flow.");
  }
  FlowOptions wanted;
  wanted.iterations = iterations;
  check_flow_options(wanted);
  const Lock lock(impl_->mutex_);
  impl_->policy_->set_iterations(iterations);
}

void Segmenter::set_keep_flow(bool keep) {
  const Lock lock(impl_->mutex_);
  impl_->flow_.keep_flow = keep;
}

}  // namespace rvos_edge
