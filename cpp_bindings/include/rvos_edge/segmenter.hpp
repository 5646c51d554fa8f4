/// @file
/// Frames and queries in, masks out.
///
///     rvos_edge::Segmenter segmenter(rvos_edge::Bundle::open("my-bundle"));
///     segmenter.set_queries({"the dog on the left", "a red ball"});
///     rvos_edge::Result result;
///     while (camera.read(image)) {
///       segmenter.step({image.data, image.rows, image.cols}, result);  // result.masks: 0 or 1, [Q,H,W]
///     }
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rvos_edge/bundle.hpp"
#include "rvos_edge/engine.hpp"
#include "rvos_edge/error.hpp"
#include "rvos_edge/flow.hpp"
#include "rvos_edge/image.hpp"

namespace rvos_edge {

/// How to segment.
struct Options {
  /// "auto" for the fastest that works, or a name such as "openvino" (`backend_names`).
  std::string backend = "auto";
  /// "auto", "cpu" or "cuda".
  std::string device = "auto";
  /// CPU threads, at least 1; none for one per physical core.
  std::optional<int> threads;
  /// How much flow to compute.
  FlowOptions flow;
  /// Logit above which a pixel belongs to the object.
  float threshold = 0.0F;
};

/// The masks of one frame. It owns everything it holds; handing the same one to `step` again reuses the memory.
struct Result {
  /// What was asked for, in the order of the first axis of the arrays.
  std::vector<std::string> queries;
  /// [Q,H,W] at the size of the frame; 1 where the object is, else 0.
  Array<std::uint8_t> masks;
  /// [Q,h,w], object minus background logit at the network's resolution.
  Array<float> margins;
  /// [Q], mean object probability over the mask, 0 for an empty mask.
  Array<float> scores;
  /// Milliseconds by stage, in the order they ran; a stage that did not run is absent. Where a GPU replays a recorded
  /// frame the graphs are one stage, `graph`.
  std::vector<Timing> timings;
  /// Whether optical flow was computed on this frame.
  bool flow_used = false;
  /// [2,h,w], pixels of the network's input, this frame to the previous one; without a shape unless asked for.
  Array<float> flow;
  /// Number of the frame since the last reset.
  std::int64_t index = 0;
  /// What was done about the flow and why; none where there is none.
  std::optional<FlowDecision> decision;
};

/// Segments what the queries name, frame after frame of one video.
///
/// Thread rules: methods may be called from several threads; one at a time works, the others wait. Encoding a new query
/// does not hold up `step`: only the exchange of the vectors does. Moving or destroying a segmenter while another
/// thread is inside it is a fault of the caller. Segmenters share nothing with each other.
class Segmenter {
 public:
  /// Load the graphs of a bundle with the backend that the options name.
  /// @throws UserError  The backend or the device cannot be used, an option is out of range, or a graph cannot be
  /// loaded.
  explicit Segmenter(const Bundle& bundle, const Options& options = {});

  /// The same with a backend of one's own; `backend`, `device` and `threads` of the options are not looked at.
  Segmenter(const Bundle& bundle, std::unique_ptr<Backend> backend, const Options& options = {});

  Segmenter(Segmenter&&) noexcept;
  Segmenter& operator=(Segmenter&&) noexcept;
  Segmenter(const Segmenter&) = delete;
  Segmenter& operator=(const Segmenter&) = delete;
  ~Segmenter();

  /// Say what to segment from the next frame on; the video's state stays. On an error the old queries stay.
  /// @param queries  UTF-8 sentences, at least one; surrounding and repeated whitespace does not matter.
  /// @throws UserError  There is no query, or one is empty, too long or not valid Unicode.
  void set_queries(const std::vector<std::string>& queries);

  /// Segment the next frame.
  /// @param frame  uint8 [H,W,3] BGR, of any size; another size than the last frame's starts the flow anew. Not kept.
  /// @throws UserError  The frame is null or of another form, or no queries are set. Where an engine fails halfway the
  ///                    video is forgotten, and the next frame is a first one.
  [[nodiscard]] Result step(const ImageView& frame);

  /// The same into a result whose memory is reused; after an error its contents are undefined.
  void step(const ImageView& frame, Result& result);

  /// Forget the video: the next frame is a first frame. The queries stay.
  void reset();

  /// What is being segmented: a copy, because another thread may be changing it.
  [[nodiscard]] std::vector<std::string> queries() const;
  /// What was opened.
  [[nodiscard]] const Bundle& bundle() const noexcept;
  /// Backend and device, for people.
  [[nodiscard]] const std::string& backend_name() const noexcept;
  /// Why that backend and device were chosen.
  [[nodiscard]] const std::string& backend_reason() const noexcept;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rvos_edge
