/// @file
/// A frame's work queued on a CUDA device: plainly, and then as one recorded graph.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cuda.hpp"
#include "device.hpp"
#include "rvos_edge/engine.hpp"

namespace rvos_edge {

/// Times of stages by events on the stream.
class EventClock {
 public:
  explicit EventClock(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  void start();
  void lap(const char* stage);
  /// Append the milliseconds of each stage; waits for the last.
  void read(std::vector<Timing>& target);

 private:
  cudaEvent_t mark();

  std::shared_ptr<Device> device_;
  std::vector<Event> events_;
  std::size_t used_ = 0;
  std::vector<std::string> stages_;
};

/// Runs frames, records those that come back, and replays them.
///
/// A frame is known by its key and by all memory that it uses: the buffers in the slots of the board, and scratch. The
/// first time it runs plainly, which lets TensorRT prepare what a capture would not allow; the second time it is
/// captured and launched; then it is replayed, and the slots are given the buffers that the swaps of its work would
/// have left there. When a capture fails, for whatever reason, frames are launched plainly from then on.
class DeviceFrames {
 public:
  /// @param record  False to launch every frame plainly.
  DeviceFrames(std::shared_ptr<Device> device, Board& board, const Scratch& scratch, bool record)
      : device_(std::move(device)), board_(board), scratch_(scratch), record_(record), clock_(device_) {}

  /// Queue a frame.
  void run(const FrameKey& key, const Backend::Work& work);
  /// As `Backend::timings`.
  void timings(std::vector<Timing>& target) { clock_.read(target); }
  /// Why frames are not recorded any more; empty while nothing went wrong.
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }

 private:
  using Arrangement = std::map<std::string, BufferPtr>;

  /// A frame that has run plainly once, and its graph as soon as it has been captured.
  struct Recording {
    FrameKey key;
    /// Held: an address cannot be reused while a recording still knows it.
    BufferPtr scratch;
    Arrangement before;
    Executable executable;
    Arrangement after;
  };

  void first(const FrameKey& key, const Arrangement& before, const Backend::Work& work);
  void plain(const Backend::Work& work);
  void queue(const Backend::Work& work, const Lap& lap);
  void capture(Recording& recording, const Backend::Work& work);
  [[nodiscard]] Executable captured(const Backend::Work& work);
  void launch(const Executable& executable);

  std::shared_ptr<Device> device_;
  Board& board_;
  const Scratch& scratch_;
  bool record_;
  EventClock clock_;
  /// The last used at the end.
  std::vector<Recording> known_;
  std::string problem_;
};

}  // namespace rvos_edge
