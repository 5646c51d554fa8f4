/// @file
/// Conversion between float16, stored as bits, and float32.
#pragma once

#include <cstdint>
#include <cstring>

namespace rvos_edge {

/// IEEE half precision to single; exact.
[[nodiscard]] inline float half_to_float(std::uint16_t half) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  const std::uint32_t rest = half & 0x7FFFU;
  std::uint32_t bits = 0;
  if (rest >= 0x7C00) {
    bits = 0x7F800000U | (rest & 0x3FFU) << 13;
  } else if (rest >= 0x400) {
    bits = (rest << 13) + (112U << 23);
  } else {
    // Subnormal: the fraction is a multiple of 2^-24.
    const float value = static_cast<float>(rest) * 0x1p-24F;
    std::memcpy(&bits, &value, sizeof bits);
  }
  bits |= sign;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// Single precision to half, rounded to the nearest, ties to even.
[[nodiscard]] inline std::uint16_t float_to_half(float value) noexcept {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t sign = bits >> 16 & 0x8000U;
  bits &= 0x7FFFFFFFU;
  if (bits > 0x7F800000U) {
    return static_cast<std::uint16_t>(sign | 0x7E00U);
  }
  if (bits >= 0x477FF000U) {  // rounds to more than 65504
    return static_cast<std::uint16_t>(sign | 0x7C00U);
  }
  if (bits < 0x38800000U) {
    // Adding 0.5 shifts the fraction to its place in a subnormal half, and rounds it.
    float magnitude = 0;
    std::memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5F;
    std::memcpy(&bits, &magnitude, sizeof bits);
    return static_cast<std::uint16_t>(sign | (bits - 0x3F000000U));
  }
  const std::uint32_t rounded = bits + 0xFFFU + (bits >> 13 & 1U);
  return static_cast<std::uint16_t>(sign | ((rounded >> 13) - (112U << 10)));
}

}  // namespace rvos_edge
