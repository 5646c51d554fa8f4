/// @file
/// A query settles on what it sees: its language vectors are taught by its own masks of the first confident frames.
/// rvos_edge/adaptation.py does the same.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "rvos_edge/segmenter.hpp"
#include "taught.hpp"
#include "teaching.hpp"
#include "text.hpp"

namespace rvos_edge {

/// Watches the results of a stream and changes the language vectors of its queries.
class Adaptation {
 public:
  /// @param again       A query whose confidence fell may settle anew.
  /// @param background  Learn in a thread while the stream goes on; otherwise a frame waits for it, and the same video
  ///                    always gives the same masks.
  Adaptation(Bundle bundle, Backend& backend, TextEncoder& encoder, bool again, bool background);
  Adaptation(const Adaptation&) = delete;
  Adaptation& operator=(const Adaptation&) = delete;
  ~Adaptation();

  /// Start with new queries and their stacked vectors; a taught query stays as it was taught.
  void start(const AskedQueries& asked, const std::vector<HostTensor>& vectors);
  /// Forget the video: every query has its sentence's vectors again.
  void reset();
  /// Rows whose vectors changed since the last call, to be written before the next frame.
  /// @throws UserError  Learning failed.
  [[nodiscard]] std::map<std::size_t, Vectors> changes();
  /// Set `result.adapted`, then take what else the result says.
  /// @param features  Function that gives the frame's features; called for a frame that is learned from.
  void observe(Result& result, const std::function<SeenFrame()>& features);

 private:
  struct Course;
  void observe(Course& course, const Result& result, std::size_t row, const std::function<SeenFrame()>& features);
  [[nodiscard]] Vectors learn(Course& course);
  static void begin_again(std::unique_ptr<Course>& course);

  Bundle bundle_;
  Backend& backend_;
  TextEncoder& encoder_;
  bool again_;
  bool background_;
  std::mutex teaching_;
  std::unique_ptr<Teacher> teacher_;
  /// One per query, null for a taught one.
  std::vector<std::unique_ptr<Course>> courses_;
};

}  // namespace rvos_edge
