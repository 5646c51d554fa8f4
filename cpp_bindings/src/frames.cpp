#include "frames.hpp"

#include <algorithm>
#include <set>

namespace rvos_edge {
namespace {

/// Name of the only stage of a replayed frame.
constexpr const char* graph_stage = "graph";
/// Recordings that are kept: up to four arrangements of a video's states for each kind of frame.
constexpr std::size_t most_recordings = 16;

bool same(const FrameKey& a, const FrameKey& b) {
  return !(a < b) && !(b < a);
}

}  // namespace

void EventClock::start() {
  used_ = 0;
  stages_.clear();
  mark();
}

void EventClock::lap(const char* stage) {
  mark();
  stages_.emplace_back(stage);
}

void EventClock::read(std::vector<Timing>& target) {
  if (stages_.empty()) {
    return;
  }
  device_->synchronize();
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, events_[i].get(), events_[i + 1].get()), "cudaEventElapsedTime");
    target.push_back({stages_[i], static_cast<double>(milliseconds)});
  }
}

cudaEvent_t EventClock::mark() {
  if (used_ == events_.size()) {
    events_.push_back(make_event(true));
  }
  cudaEvent_t event = events_[used_++].get();
  check_cuda(cudaEventRecord(event, device_->stream()), "cudaEventRecord");
  return event;
}

void DeviceFrames::run(const FrameKey& key, const Backend::Work& work) {
  if (!record_) {
    plain(work);
    return;
  }
  const Arrangement before = board_.arrangement();
  const auto found = std::find_if(known_.begin(), known_.end(), [&](const Recording& recording) {
    return same(recording.key, key) && recording.scratch == scratch_.buffer() && recording.before == before;
  });
  if (found == known_.end()) {
    first(key, before, work);
    return;
  }
  std::rotate(found, found + 1, known_.end());
  Recording& recording = known_.back();
  if (!recording.executable) {
    capture(recording, work);
  } else {
    launch(recording.executable);
    board_.arrange(recording.after);
  }
}

void DeviceFrames::first(const FrameKey& key, const Arrangement& before, const Backend::Work& work) {
  const BufferPtr scratch = scratch_.buffer();
  plain(work);
  device_->synchronize();
  hooks_.after_first();
  // Frames that used memory which is gone will not recur.
  const std::set<const Buffer*> live = board_.buffers();
  const auto dead = [&](const Recording& recording) {
    return recording.scratch != scratch_.buffer() ||
           std::any_of(recording.before.begin(), recording.before.end(),
                       [&live](const auto& slot) { return live.count(slot.second.get()) == 0; });
  };
  known_.erase(std::remove_if(known_.begin(), known_.end(), dead), known_.end());
  if (scratch == scratch_.buffer()) {
    known_.push_back({key, scratch, before, nullptr, {}});
  }
  if (known_.size() > most_recordings) {
    known_.erase(known_.begin());
  }
}

void DeviceFrames::plain(const Backend::Work& work) {
  clock_.start();
  try {
    queue(work, [this](const char* stage) { clock_.lap(stage); });
  } catch (...) {
    // Wait, so that half a frame does not run into the next one.
    cudaStreamSynchronize(device_->stream());
    throw;
  }
}

void DeviceFrames::queue(const Backend::Work& work, const Lap& lap) {
  device_->in_frame = true;
  try {
    work(lap);
  } catch (...) {
    device_->in_frame = false;
    throw;
  }
  device_->in_frame = false;
}

void DeviceFrames::capture(Recording& recording, const Backend::Work& work) {
  const Arrangement before = recording.before;
  try {
    recording.executable = captured(work);
    recording.after = board_.arrangement();
    launch(recording.executable);
  } catch (const std::exception& error) {
    // If the fault is not in the capture, the plain run throws it again.
    record_ = false;
    problem_ = error.what();
    problem_.erase(problem_.find_last_not_of('.') + 1);
    known_.clear();
    board_.arrange(before);
    plain(work);
  }
}

Executable DeviceFrames::captured(const Backend::Work& work) {
  hooks_.before_capture();
  // Other threads may allocate meanwhile; only this thread's calls are restricted.
  check_cuda(cudaStreamBeginCapture(device_->stream(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  cudaGraph_t made = nullptr;
  try {
    queue(work, [](const char*) {});
  } catch (...) {
    // A capture must be ended even after a failure.
    cudaStreamEndCapture(device_->stream(), &made);
    const CudaGraph discarded(made);
    throw;
  }
  const cudaError_t ended = cudaStreamEndCapture(device_->stream(), &made);
  const CudaGraph graph(made);
  check_cuda(ended, "cudaStreamEndCapture");
  cudaGraphExec_t executable = nullptr;
  check_cuda(cudaGraphInstantiate(&executable, graph.get(), 0), "cudaGraphInstantiate");
  return Executable(executable);
}

void DeviceFrames::launch(const Executable& executable) {
  clock_.start();
  check_cuda(cudaGraphLaunch(executable.get(), device_->stream()), "cudaGraphLaunch");
  clock_.lap(graph_stage);
}

}  // namespace rvos_edge
