#include "resize.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace rvos_edge {
namespace {

constexpr float weight_scale = 2048.0F;

/// Round to the nearest, ties to even: `cvRound`.
std::int32_t round_even(float value) noexcept {
  return static_cast<std::int32_t>(std::lrint(value));
}

/// Blend a pixel of 3 channels with its right neighbour. Reads 8 bytes; writes 4 values, the last without meaning.
inline void blend(const std::uint8_t* left, std::int32_t a, std::int32_t b, std::int16_t* target) noexcept {
#if defined(__SSE2__)
  const __m128i pixels =
      _mm_unpacklo_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(left)), _mm_setzero_si128());
  const __m128i pairs = _mm_unpacklo_epi16(pixels, _mm_srli_si128(pixels, 6));
  const __m128i sums = _mm_srai_epi32(_mm_madd_epi16(pairs, _mm_set1_epi32(a | b << 16)), 4);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(target), _mm_packs_epi32(sums, sums));
#elif defined(__ARM_NEON)
  const int16x8_t pixels = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(left)));
  const int32x4_t sums = vmlal_n_s16(vmull_n_s16(vget_low_s16(pixels), static_cast<std::int16_t>(a)),
                                     vget_low_s16(vextq_s16(pixels, pixels, 3)), static_cast<std::int16_t>(b));
  vst1_s16(target, vshrn_n_s32(sums, 4));
#else
  for (int c = 0; c < 3; ++c) {
    target[c] = static_cast<std::int16_t>((left[c] * a + left[c + 3] * b) >> 4);
  }
#endif
}

std::uint8_t saturate(float value) noexcept {
  return static_cast<std::uint8_t>(std::clamp(round_even(value), 0, 255));
}

}  // namespace

Taps linear_taps(int source, int target, bool clamp) {
  Taps taps;
  const auto size = static_cast<std::size_t>(target);
  taps.at.resize(size);
  taps.weight.resize(size);
  const double scale = 1.0 / (static_cast<double>(target) / source);
  for (int i = 0; i < target; ++i) {
    const auto position = static_cast<float>((i + 0.5) * scale - 0.5);
    int at = static_cast<int>(std::floor(position));
    float weight = position - static_cast<float>(at);
    if (clamp && (at < 0 || at >= source - 1)) {
      weight = 0;
      at = at < 0 ? 0 : source - 1;
    }
    taps.at[static_cast<std::size_t>(i)] = at;
    taps.weight[static_cast<std::size_t>(i)] = weight;
  }
  return taps;
}

void Resizer::prepare(Size source) {
  source_ = source;
  const Taps columns = linear_taps(source.width, target_.width, true);
  const std::size_t width = columns.at.size();
  left_.resize(width);
  left_weight_.resize(width);
  right_weight_.resize(width);
  for (std::size_t i = 0; i < width; ++i) {
    left_[i] = 3 * columns.at[i];
    left_weight_[i] = round_even((1.0F - columns.weight[i]) * weight_scale);
    right_weight_[i] = round_even(columns.weight[i] * weight_scale);
  }
  rows_ = linear_taps(source.height, target_.height, false);
  // One more than a row, because `blend` writes four values.
  first_.resize(3 * width + 1);
  second_.resize(3 * width + 1);
}

void Resizer::fill_row(const ImageView& frame, int row, std::int16_t* filled) const {
  const std::uint8_t* pixels = frame.data + frame.stride * row;
  // The last pixel has no right neighbour; the weight of any substitute is zero.
  const int last = 3 * (source_.width - 1);
  std::size_t i = 0;
  for (; i < left_.size() && left_[i] + 8 <= 3 * source_.width; ++i) {
    blend(pixels + left_[i], left_weight_[i], right_weight_[i], filled + 3 * i);
  }
  for (; i < left_.size(); ++i) {
    const std::uint8_t* left = pixels + left_[i];
    const std::uint8_t* right = pixels + std::min(left_[i] + 3, last);
    const std::int32_t a = left_weight_[i];
    const std::int32_t b = right_weight_[i];
    for (int c = 0; c < 3; ++c) {
      filled[3 * i + static_cast<std::size_t>(c)] = static_cast<std::int16_t>((left[c] * a + right[c] * b) >> 4);
    }
  }
}

void Resizer::operator()(ImageView frame, std::uint8_t* target, std::size_t pitch) {
  frame.stride = frame.stride != 0 ? frame.stride : std::ptrdiff_t{3} * frame.width;
  const Size size{frame.height, frame.width};
  const std::size_t row_bytes = 3 * static_cast<std::size_t>(target_.width);
  pitch = pitch != 0 ? pitch : row_bytes;
  if (size == target_) {
    for (int row = 0; row < size.height; ++row, target += pitch) {
      std::memcpy(target, frame.data + frame.stride * row, row_bytes);
    }
    return;
  }
  if (size != source_) {
    prepare(size);
  }
  // Source rows in the two buffers; neighbouring target rows share most of them.
  int first_row = -1;
  int second_row = -1;
  for (std::size_t row = 0; row < rows_.at.size(); ++row, target += pitch) {
    const int upper = std::clamp(rows_.at[row], 0, source_.height - 1);
    const int lower = std::clamp(rows_.at[row] + 1, 0, source_.height - 1);
    if (upper != first_row && upper == second_row) {
      std::swap(first_, second_);
      std::swap(first_row, second_row);
    }
    if (upper != first_row) {
      fill_row(frame, upper, first_.data());
      first_row = upper;
    }
    if (lower != second_row) {
      fill_row(frame, lower, second_.data());
      second_row = lower;
    }
    const auto a = static_cast<std::int16_t>(round_even((1.0F - rows_.weight[row]) * weight_scale));
    const auto b = static_cast<std::int16_t>(round_even(rows_.weight[row] * weight_scale));
    const std::int16_t* above = first_.data();
    const std::int16_t* below = second_.data();
    for (std::size_t i = 0; i < row_bytes; ++i) {
      target[i] = static_cast<std::uint8_t>((((above[i] * a) >> 16) + ((below[i] * b) >> 16) + 2) >> 2);
    }
  }
}

std::vector<AreaResizer::Share> AreaResizer::shares(int source, int target) {
  // OpenCV's computeResizeAreaTab, with its tolerance.
  std::vector<Share> table;
  const double scale = 1.0 / (static_cast<double>(target) / source);
  for (int i = 0; i < target; ++i) {
    const double start = i * scale;
    const double end = start + scale;
    const double width = std::min(scale, source - start);
    const int last = std::min(static_cast<int>(std::floor(end)), source - 1);
    const int first = std::min(static_cast<int>(std::ceil(start)), last);
    if (first - start > 1e-3) {
      table.push_back({first - 1, i, static_cast<float>((first - start) / width)});
    }
    for (int at = first; at < last; ++at) {
      table.push_back({at, i, static_cast<float>(1.0 / width)});
    }
    if (end - last > 1e-3) {
      table.push_back({last, i, static_cast<float>(std::min(std::min(end - last, 1.0), width) / width)});
    }
  }
  return table;
}

void AreaResizer::operator()(const std::uint8_t* image, Size size, std::uint8_t* target) {
  if (size.height % target_.height == 0 && size.width % target_.width == 0) {
    whole(image, size, target);
  } else {
    general(image, size, target);
  }
}

void AreaResizer::whole(const std::uint8_t* image, Size size, std::uint8_t* target) {
  const int tall = size.height / target_.height;
  const int wide = size.width / target_.width;
  const float scale = 1.0F / static_cast<float>(tall * wide);
  const auto row_bytes = 3 * static_cast<std::size_t>(size.width);
  sums_.resize(row_bytes);
  for (int y = 0; y < target_.height; ++y) {
    // Rows are added first, which vectorises.
    std::fill(sums_.begin(), sums_.end(), 0);
    for (int row = 0; row < tall; ++row, image += row_bytes) {
      for (std::size_t i = 0; i < row_bytes; ++i) {
        sums_[i] += image[i];
      }
    }
    const std::int32_t* sum = sums_.data();
    for (int x = 0; x < target_.width; ++x, target += 3) {
      std::int32_t total[3] = {};
      for (int column = 0; column < wide; ++column, sum += 3) {
        total[0] += sum[0];
        total[1] += sum[1];
        total[2] += sum[2];
      }
      for (int c = 0; c < 3; ++c) {
        target[c] = saturate(static_cast<float>(total[c]) * scale);
      }
    }
  }
}

void AreaResizer::general(const std::uint8_t* image, Size size, std::uint8_t* target) {
  if (size != source_) {
    source_ = size;
    columns_ = shares(size.width, target_.width);
    rows_ = shares(size.height, target_.height);
    row_.resize(3 * static_cast<std::size_t>(target_.width));
    total_.resize(row_.size());
  }
  std::fill(total_.begin(), total_.end(), 0.0F);
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const Share& share = rows_[i];
    const std::uint8_t* pixels = image + std::ptrdiff_t{3} * size.width * share.source;
    std::fill(row_.begin(), row_.end(), 0.0F);
    for (const Share& column : columns_) {
      for (int c = 0; c < 3; ++c) {
        row_[3 * static_cast<std::size_t>(column.target) + static_cast<std::size_t>(c)] +=
            static_cast<float>(pixels[3 * column.source + c]) * column.weight;
      }
    }
    for (std::size_t x = 0; x < row_.size(); ++x) {
      total_[x] += share.weight * row_[x];
    }
    if (i + 1 == rows_.size() || rows_[i + 1].target != share.target) {
      std::uint8_t* line = target + std::ptrdiff_t{3} * target_.width * share.target;
      std::transform(total_.begin(), total_.end(), line, saturate);
      std::fill(total_.begin(), total_.end(), 0.0F);
    }
  }
}

}  // namespace rvos_edge
