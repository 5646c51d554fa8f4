/// @file
/// SHA-256 (FIPS 180-4), for the hashes of the manifest.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace rvos_edge {

/// An incremental hash.
class Sha256 {
 public:
  void update(const void* data, std::size_t bytes) noexcept;
  /// The digest in hexadecimal; the object cannot be used afterwards.
  [[nodiscard]] std::string hex();

 private:
  void block(const std::uint8_t* data) noexcept;

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> pending_ = {};
  std::uint64_t length_ = 0;
};

/// Hexadecimal sha256 of bytes.
[[nodiscard]] std::string sha256_of(std::string_view bytes);
/// Hexadecimal sha256 of a file; empty if it cannot be read.
[[nodiscard]] std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace rvos_edge
