/// @file
/// The segmenter: frames and queries in, masks out.
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

#include "rvos_edge/api.h"
#include "rvos_edge/bundle.hpp"
#include "rvos_edge/engine.hpp"
#include "rvos_edge/error.hpp"
#include "rvos_edge/flow.hpp"
#include "rvos_edge/image.hpp"

namespace rvos_edge {

/// Options of a segmenter.
struct Options {
  /// "auto" for the fastest that works, or a name such as "openvino" (`backend_names`).
  std::string backend = "auto";
  /// "auto", "cpu", "cuda", or "cuda:1" for the second GPU.
  std::string device = "auto";
  /// CPU threads, at least 1; none for one per physical core.
  std::optional<int> threads;
  /// Optical flow: how much, and when.
  FlowOptions flow;
  /// Logit above which a pixel belongs to the object.
  float threshold = 0.0F;
  /// Keep the masks of absent queries, which are empty otherwise.
  bool keep_absent = false;
};

/// Choice if queries settle on what they see; `on`: again after their confidence fell.
enum class Adapt { off, once, on };

/// Masks of one frame. A result owns its arrays; passing it to `step` again reuses their memory.
struct Result {
  /// The queries, in the order of the first axis of the arrays.
  std::vector<std::string> queries;
  /// [Q,H,W] at the size of the frame; 1 where the object is, else 0.
  Array<std::uint8_t> masks;
  /// [Q,h,w], object minus background logit at the network's resolution.
  Array<float> margins;
  /// [Q], mean object probability over the mask; 0 for an empty mask.
  Array<float> scores;
  /// [Q], probability that the query's object is in the frame, smoothed over time; 1 without a presence head.
  Array<float> presence;
  /// [Q], the same decided with hysteresis, 0 or 1; without a presence head, 1 if the mask is not empty.
  Array<std::uint8_t> present;
  /// [Q], 1 for a query that was taught by its own masks (`Segmenter::set_adapt`), else 0.
  Array<std::uint8_t> adapted;
  /// Milliseconds by stage, in the order they ran; a stage that did not run is absent. A frame that a GPU replays has
  /// one stage, `graph`, for all graphs.
  std::vector<Timing> timings;
  /// True if optical flow was computed on this frame.
  bool flow_used = false;
  /// [2,h,w], flow from this frame to the previous one in pixels of the network's input; empty without `keep_flow`.
  Array<float> flow;
  /// Number of the frame since the last reset.
  std::int64_t index = 0;
  /// Decision on the flow and its reason; none without flow.
  std::optional<FlowDecision> decision;
};

/// Segments what the queries name, frame after frame of one video.
///
/// Thread safety: methods may be called from several threads; one works at a time and the others wait. Encoding a new
/// query does not delay `step`; only the exchange of the vectors does. A segmenter must not be moved or destroyed while
/// another thread uses it. Segmenters share nothing with each other.
class RVOS_EDGE_API Segmenter {
 public:
  /// Load the graphs of a bundle with the backend that the options name.
  /// @throws UserError  The backend or the device cannot be used, an option is out of range, or a graph cannot be
  ///                    loaded.
  explicit Segmenter(const Bundle& bundle, const Options& options = {});

  /// Load the graphs with a given backend; `backend`, `device` and `threads` of the options are ignored.
  Segmenter(const Bundle& bundle, std::unique_ptr<Backend> backend, const Options& options = {});

  Segmenter(Segmenter&&) noexcept;
  Segmenter& operator=(Segmenter&&) noexcept;
  Segmenter(const Segmenter&) = delete;
  Segmenter& operator=(const Segmenter&) = delete;
  ~Segmenter();

  /// Set the queries from the next frame on; the state of the video stays. After an error the old queries stay.
  /// @param queries  English sentences in UTF-8, at least one; surrounding and repeated whitespace is ignored. "@FILE"
  /// is
  ///                 a taught query, and so is the JSON of its file. A program that takes queries from strangers
  ///                 refuses those that begin with '@'.
  /// @throws UserError  There is no query, or one is empty, too long or not English text; or a taught query is damaged
  /// or
  ///                    of another network.
  void set_queries(const std::vector<std::string>& queries);

  /// Normalised queries, as `set_queries` would take them. Nothing changes, and no frame is waited for.
  /// @throws UserError  As `set_queries`.
  [[nodiscard]] std::vector<std::string> check_queries(const std::vector<std::string>& queries) const;

  /// Segment the next frame.
  /// @param frame  uint8 [H,W,3] BGR, of any size; a new size starts the flow anew. Not kept after the call.
  /// @throws UserError  The frame is null or of another form, or no queries are set. If an engine fails, the video is
  ///                    forgotten and the next frame is a first frame.
  [[nodiscard]] Result step(const ImageView& frame);

  /// Segment the next frame into a result whose memory is reused; after an error its contents are undefined.
  void step(const ImageView& frame, Result& result);

  /// Forget the video: the next frame is a first frame. The queries stay.
  void reset();

  /// Logit above which a pixel belongs to the object.
  [[nodiscard]] float threshold() const;
  /// Set the threshold from the next frame on.
  /// @throws UserError  It is not finite.
  void set_threshold(float threshold);
  /// Updates per computed flow; none without flow.
  [[nodiscard]] std::optional<int> iterations() const;
  /// Set the updates per computed flow from the next frame on; the state of the video stays.
  /// @throws UserError  The number is less than 1, or no flow is computed.
  void set_iterations(int iterations);
  /// Choose whether results carry the flow from the next frame on.
  void set_keep_flow(bool keep);
  /// Choose if queries settle on their own first confident masks, from the next frame on; off at first.
  ///
  /// With `once` a query that is surely present is taught by its masks of two confident frames, which the mean answer
  /// of several wordings of it gives; it is undone when confidence falls, at `reset`, and on a cut after which the
  /// object is gone. Nothing happens with a bundle without the graph `teach` or without presence.
  /// @param background  Learn in a thread while the stream goes on, for cameras; an error of it is thrown by a later
  ///                    `step`. Otherwise a frame waits, and the same video always gives the same masks.
  void set_adapt(Adapt adapt, bool background = false);

  /// The current queries, normalised; taught ones by their names.
  [[nodiscard]] std::vector<std::string> queries() const;
  /// The opened bundle.
  [[nodiscard]] const Bundle& bundle() const noexcept;
  /// Backend and device, for people.
  [[nodiscard]] const std::string& backend_name() const noexcept;
  /// Reason for the choice of backend and device; a backend may add to it while it runs.
  [[nodiscard]] std::string backend_reason() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rvos_edge
