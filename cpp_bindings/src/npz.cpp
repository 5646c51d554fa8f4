#include "npz.hpp"

#include <array>
#include <cstring>

namespace rvos_edge {
namespace {

constexpr std::uint32_t local_signature = 0x04034B50;
constexpr std::uint32_t central_signature = 0x02014B50;
constexpr std::uint32_t end_signature = 0x06054B50;
constexpr std::size_t local_bytes = 30;
constexpr std::size_t central_bytes = 46;
constexpr std::size_t end_bytes = 22;

/// The polynomial of zip, bit by bit: an archive has a kilobyte or two.
std::uint32_t crc32(std::string_view bytes) noexcept {
  std::uint32_t crc = ~0U;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) {
      crc = crc >> 1 ^ ((crc & 1U) != 0 ? 0xEDB88320U : 0U);
    }
  }
  return ~crc;
}

void put(std::string& bytes, std::uint32_t value, int width) {
  for (int i = 0; i < width; ++i, value >>= 8) {
    bytes += static_cast<char>(value & 0xFFU);
  }
}

/// Little-endian number at `at`; 0 past the end.
std::uint32_t get(std::string_view bytes, std::size_t at, std::size_t width) noexcept {
  std::uint32_t value = 0;
  for (std::size_t i = width; i-- > 0;) {
    value = value << 8 | (at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0U);
  }
  return value;
}

constexpr std::array<std::string_view, 4> descriptions = {"|u1", "<i8", "<f2", "<f4"};

std::string npy(const HostTensor& array) {
  std::string header = "{'descr': '" + std::string(descriptions[static_cast<std::size_t>(array.dtype)]) +
                       "', 'fortran_order': False, 'shape': (";
  for (const std::int64_t extent : array.shape) {
    header += std::to_string(extent) + (array.shape.size() == 1 ? "," : ", ");
  }
  if (array.shape.size() > 1) {
    header.resize(header.size() - 2);
  }
  header += "), }";
  constexpr std::size_t preamble = 10;
  header.append((64 - (preamble + header.size() + 1) % 64) % 64, ' ');
  header += '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  put(bytes, static_cast<std::uint32_t>(header.size()), 2);
  return (bytes += header).append(reinterpret_cast<const char*>(array.data.data()), array.data.size());
}

/// The text after `key` in an npy header, up to `stop`.
std::optional<std::string_view> entry(std::string_view header, std::string_view key, char stop) {
  const std::size_t at = header.find(key);
  if (at == std::string_view::npos) {
    return std::nullopt;
  }
  const std::size_t start = at + key.size();
  const std::size_t end = header.find(stop, start);
  return end == std::string_view::npos ? std::nullopt : std::optional(header.substr(start, end - start));
}

std::optional<Shape> parse_shape(std::string_view text) {
  Shape shape;
  std::int64_t value = -1;
  for (const char c : text) {
    if (c >= '0' && c <= '9' && value < (1 << 24)) {
      value = std::max<std::int64_t>(value, 0) * 10 + (c - '0');
    } else if (c == ',' && value >= 0) {
      shape.push_back(value);
      value = -1;
    } else if (c != ' ') {
      return std::nullopt;
    }
  }
  if (value >= 0) {
    shape.push_back(value);
  }
  return shape;
}

bool parse_npy(std::string_view bytes, HostTensor& array) {
  if (bytes.substr(0, 7) != std::string_view("\x93NUMPY\x01", 7)) {
    return false;
  }
  const std::size_t length = get(bytes, 8, 2);
  const std::string_view header = bytes.substr(std::min<std::size_t>(10, bytes.size()), length);
  const auto description = entry(header, "'descr': '", '\'');
  const auto order = entry(header, "'fortran_order': ", ',');
  const auto extents = entry(header, "'shape': (", ')');
  if (!description || order != "False" || !extents || bytes.size() < 10 + length) {
    return false;
  }
  std::size_t kind = 0;
  while (kind < descriptions.size() && descriptions[kind] != *description) {
    ++kind;
  }
  const auto shape = parse_shape(*extents);
  if (kind == descriptions.size() || !shape) {
    return false;
  }
  array.dtype = static_cast<DType>(kind);
  array.shape = *shape;
  std::size_t elements = 1;
  for (const std::int64_t extent : *shape) {
    elements *= static_cast<std::size_t>(extent);
    if (elements > bytes.size()) {
      return false;
    }
  }
  const std::string_view data = bytes.substr(10 + length);
  if (data.size() != elements * dtype_bytes(array.dtype)) {
    return false;
  }
  array.data.resize(data.size());
  if (!data.empty()) {
    std::memcpy(array.data.data(), data.data(), data.size());
  }
  return true;
}

}  // namespace

std::string write_npz(const std::vector<HostTensor>& arrays) {
  std::string bytes;
  std::string directory;
  for (const HostTensor& array : arrays) {
    const std::string name = array.name + ".npy";
    const std::string content = npy(array);
    const auto size = static_cast<std::uint32_t>(content.size());
    std::string common;
    put(common, 20, 2);          // version that reads it
    put(common, 0, 2);           // flags
    put(common, 0, 2);           // stored
    put(common, 0x00210000, 4);  // 1980-01-01
    put(common, crc32(content), 4);
    put(common, size, 4);
    put(common, size, 4);
    put(common, static_cast<std::uint32_t>(name.size()), 2);
    put(common, 0, 2);  // no extra field
    put(directory, central_signature, 4);
    put(directory, 20, 2);
    directory += common;
    put(directory, 0, 2);  // comment
    put(directory, 0, 2);  // disk
    put(directory, 0, 2);  // internal attributes
    put(directory, std::uint32_t{0600} << 16, 4);
    put(directory, static_cast<std::uint32_t>(bytes.size()), 4);
    directory += name;
    put(bytes, local_signature, 4);
    bytes += common + name + content;
  }
  const auto offset = static_cast<std::uint32_t>(bytes.size());
  bytes += directory;
  put(bytes, end_signature, 4);
  put(bytes, 0, 4);  // disks
  put(bytes, static_cast<std::uint32_t>(arrays.size()), 2);
  put(bytes, static_cast<std::uint32_t>(arrays.size()), 2);
  put(bytes, static_cast<std::uint32_t>(directory.size()), 4);
  put(bytes, offset, 4);
  put(bytes, 0, 2);  // comment
  return bytes;
}

std::optional<std::vector<HostTensor>> read_npz(std::string_view bytes) {
  // Ours and NumPy's archives have no comment: the end record lies at the very end.
  if (bytes.size() < end_bytes || get(bytes, bytes.size() - end_bytes, 4) != end_signature) {
    return std::nullopt;
  }
  const std::size_t end = bytes.size() - end_bytes;
  std::vector<HostTensor> arrays;
  std::size_t at = get(bytes, end + 16, 4);
  for (std::uint32_t left = get(bytes, end + 10, 2); left > 0; --left) {
    if (get(bytes, at, 4) != central_signature || get(bytes, at + 10, 2) != 0) {
      return std::nullopt;
    }
    const std::size_t size = get(bytes, at + 24, 4);
    const std::size_t name_bytes = get(bytes, at + 28, 2);
    const std::size_t local = get(bytes, at + 42, 4);
    if (get(bytes, local, 4) != local_signature || at + central_bytes + name_bytes > bytes.size()) {
      return std::nullopt;
    }
    const std::string_view name = bytes.substr(at + central_bytes, name_bytes);
    const std::size_t start = local + local_bytes + get(bytes, local + 26, 2) + get(bytes, local + 28, 2);
    constexpr std::string_view suffix = ".npy";
    if (start + size > bytes.size() || name.size() < suffix.size() ||
        name.substr(name.size() - suffix.size()) != suffix) {
      return std::nullopt;
    }
    const std::string_view content = bytes.substr(start, size);
    HostTensor array;
    array.name = std::string(name.substr(0, name.size() - suffix.size()));
    if (crc32(content) != get(bytes, at + 16, 4) || !parse_npy(content, array)) {
      return std::nullopt;
    }
    arrays.push_back(std::move(array));
    at += central_bytes + name_bytes + get(bytes, at + 30, 2) + get(bytes, at + 32, 2);
  }
  return arrays;
}

}  // namespace rvos_edge
