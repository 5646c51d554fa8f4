/// @file
/// A frame's work on a CUDA device: queued call by call, then replayed as one recorded graph.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cuda.hpp"
#include "device.hpp"
#include "rvos_edge/engine.hpp"

namespace rvos_edge {

/// Times stages by events on the stream.
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

/// Runs frames, records those that recur, and replays them.
///
/// A frame is identified by its key and the memory that it uses: the buffers in the slots of the board, and scratch. It
/// first runs plainly, which lets TensorRT prepare what a capture would not allow. The second time it is captured and
/// launched. Later it is replayed, and the slots are given the buffers that the swaps of its work would have left
/// there. After a failed capture all frames run plainly.
class DeviceFrames {
 public:
  /// Functions to call around recording.
  struct Hooks {
    /// Before a capture; an exception means that frames cannot be captured.
    std::function<void()> before_capture;
    /// After a frame ran plainly for the first time.
    std::function<void()> after_first;
  };

  /// @param record  False to run every frame plainly.
  DeviceFrames(std::shared_ptr<Device> device, Board& board, const Scratch& scratch, bool record, Hooks hooks)
      : device_(std::move(device)), board_(board), scratch_(scratch), record_(record), hooks_(std::move(hooks)),
        clock_(device_) {}

  /// Queue a frame.
  void run(const FrameKey& key, const Backend::Work& work);
  /// As `Backend::timings`.
  void timings(std::vector<Timing>& target) { clock_.read(target); }
  /// Reason why frames are not recorded any more; empty if nothing failed.
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }

 private:
  using Arrangement = std::map<std::string, BufferPtr>;

  /// A frame that has run plainly, and its graph once it is captured.
  struct Recording {
    FrameKey key;
    /// Held so that its address is not reused while the recording exists.
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
  Hooks hooks_;
  EventClock clock_;
  /// Most recently used last.
  std::vector<Recording> known_;
  std::string problem_;
};

}  // namespace rvos_edge
