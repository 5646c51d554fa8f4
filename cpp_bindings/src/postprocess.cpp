#include "postprocess.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "rvos_edge/error.hpp"

namespace rvos_edge {
namespace {

/// Resample one row of margins to the width of the frame.
void widen(const float* row, int width, const Taps& columns, float* wide) {
  for (std::size_t i = 0; i < columns.at.size(); ++i) {
    const int at = columns.at[i];
    const float weight = columns.weight[i];
    wide[i] = row[at] * (1.0F - weight) + row[std::min(at + 1, width - 1)] * weight;
  }
}

}  // namespace

void check_frame(const ImageView& frame) {
  const std::string wanted = "a frame must be a uint8 array [H,W,3] in BGR, not ";
  if (frame.data == nullptr) {
    throw UserError(ErrorCode::bad_frame, wanted + "a null pointer.");
  }
  if (frame.height < 1 || frame.width < 1 || frame.channels != 3) {
    throw UserError(ErrorCode::bad_frame, wanted + "uint8 of shape [" + std::to_string(frame.height) + ", " +
                                              std::to_string(frame.width) + ", " + std::to_string(frame.channels) +
                                              "]; convert it.");
  }
  const std::ptrdiff_t row = std::ptrdiff_t{3} * frame.width;
  if (frame.stride != 0 && std::abs(frame.stride) < row) {
    throw UserError(ErrorCode::bad_frame, "the rows of a frame of width " + std::to_string(frame.width) + " take " +
                                              std::to_string(row) + " bytes, more than its stride of " +
                                              std::to_string(frame.stride) + "; give the bytes from row to row.");
  }
}

void check_threshold(float threshold) {
  if (!std::isfinite(threshold)) {
    throw UserError(ErrorCode::invalid_argument, "a threshold must be a finite number; give one such as 0.");
  }
}

void Postprocessor::prepare(Size source, Size target) {
  source_ = source;
  target_ = target;
  columns_ = linear_taps(source.width, target.width, true);
  rows_ = linear_taps(source.height, target.height, false);
  first_.resize(columns_.at.size());
  second_.resize(columns_.at.size());
}

void Postprocessor::masks(const Array<float>& margins, Size size, Array<std::uint8_t>& masks) {
  const Shape& shape = margins.shape();
  const Size source{static_cast<int>(shape[1]), static_cast<int>(shape[2])};
  if (source != source_ || size != target_) {
    prepare(source, size);
  }
  masks.resize({shape[0], size.height, size.width});
  const std::size_t from = count({shape[1], shape[2]});
  const std::size_t to = count({size.height, size.width});
  for (std::size_t query = 0; query < static_cast<std::size_t>(shape[0]); ++query) {
    mask(margins.data() + query * from, masks.data() + query * to);
  }
}

void Postprocessor::mask(const float* margin, std::uint8_t* mask) {
  int first_row = -1;
  int second_row = -1;
  const std::size_t width = columns_.at.size();
  const auto fill = [&](int row, std::vector<float>& wide) {
    widen(margin + std::ptrdiff_t{row} * source_.width, source_.width, columns_, wide.data());
    return row;
  };
  for (std::size_t row = 0; row < rows_.at.size(); ++row, mask += width) {
    const int upper = std::clamp(rows_.at[row], 0, source_.height - 1);
    const int lower = std::clamp(rows_.at[row] + 1, 0, source_.height - 1);
    if (upper != first_row && upper == second_row) {
      std::swap(first_, second_);
      std::swap(first_row, second_row);
    }
    first_row = upper == first_row ? upper : fill(upper, first_);
    second_row = lower == second_row ? lower : fill(lower, second_);
    const float b = rows_.weight[row];
    const float a = 1.0F - b;
    const float threshold = threshold_;
    const float* above = first_.data();
    const float* below = second_.data();
    for (std::size_t i = 0; i < width; ++i) {
      mask[i] = above[i] * a + below[i] * b > threshold ? 1 : 0;
    }
  }
}

void Postprocessor::scores(const Array<float>& margins, Array<float>& scores) const {
  const Shape& shape = margins.shape();
  scores.resize({shape[0]});
  const std::size_t pixels = count({shape[1], shape[2]});
  const float* margin = margins.data();
  for (float& score : scores) {
    double sum = 0;
    std::size_t inside = 0;
    for (const float* end = margin + pixels; margin != end; ++margin) {
      if (*margin > threshold_) {
        // The logistic function, written so that it cannot overflow.
        sum += 0.5 + 0.5 * static_cast<double>(std::tanh(0.5F * *margin));
        ++inside;
      }
    }
    score = inside == 0 ? 0.0F : static_cast<float>(sum / static_cast<double>(inside));
  }
}

}  // namespace rvos_edge
