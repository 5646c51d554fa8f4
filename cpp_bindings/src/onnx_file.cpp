#include "onnx_file.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace rvos_edge {
namespace {

/// The messages of onnx.proto that lead to tensors.
enum class Message { model, training, function, graph, node, attribute, sparse, tensor };

/// A field of one message that holds another.
struct Field {
  Message parent;
  std::uint32_t number;
  Message child;
};

constexpr Field fields[] = {
    {Message::model, 7, Message::graph},         {Message::model, 20, Message::training},
    {Message::model, 25, Message::function},     {Message::training, 1, Message::graph},
    {Message::training, 2, Message::graph},      {Message::function, 7, Message::node},
    {Message::function, 11, Message::attribute}, {Message::graph, 1, Message::node},
    {Message::graph, 5, Message::tensor},        {Message::graph, 15, Message::sparse},
    {Message::node, 5, Message::attribute},      {Message::attribute, 5, Message::tensor},
    {Message::attribute, 6, Message::graph},     {Message::attribute, 10, Message::tensor},
    {Message::attribute, 11, Message::graph},    {Message::attribute, 22, Message::sparse},
    {Message::attribute, 23, Message::sparse},   {Message::sparse, 1, Message::tensor},
    {Message::sparse, 2, Message::tensor},
};
/// `external_data` and `data_location` of TensorProto.
constexpr std::uint64_t external_data = 13;
constexpr std::uint64_t data_location = 14;
/// Nested graphs; protobuf itself stops at 100.
constexpr int deepest = 100;

/// How the value of a field is encoded.
enum class Wire : unsigned { varint = 0, eight_bytes = 1, counted = 2, four_bytes = 5 };

/// Begin of a field: its value if that is a varint, else the number of bytes that follow.
struct Tag {
  std::uint64_t number = 0;
  std::uint64_t value = 0;
  Wire wire = Wire::varint;
};

bool names_another_file(Message message, const Tag& tag) noexcept {
  return message == Message::tensor && (tag.number == external_data || (tag.number == data_location && tag.value != 0));
}

class Walker {
 public:
  explicit Walker(std::istream& file) : file_(file) {}

  /// Walk one message of `bytes` bytes.
  OnnxFile walk(Message message, std::uint64_t bytes, int depth) {
    if (depth > deepest) {
      return OnnxFile::invalid;
    }
    const std::uint64_t end = at_ + bytes;
    while (at_ < end) {
      Tag tag;
      if (!read(tag)) {
        return OnnxFile::invalid;
      }
      const OnnxFile found =
          names_another_file(message, tag) ? OnnxFile::external : walk_field(message, tag, end, depth);
      if (found != OnnxFile::whole) {
        return found;
      }
    }
    return at_ == end ? OnnxFile::whole : OnnxFile::invalid;
  }

 private:
  /// Walk the message that a field holds, or skip its bytes.
  OnnxFile walk_field(Message message, const Tag& tag, std::uint64_t end, int depth) {
    if (tag.wire == Wire::varint) {
      return OnnxFile::whole;
    }
    if (at_ > end || tag.value > end - at_) {
      return OnnxFile::invalid;
    }
    const auto* const field = std::find_if(std::begin(fields), std::end(fields), [&](const Field& candidate) {
      return tag.wire == Wire::counted && candidate.parent == message && candidate.number == tag.number;
    });
    return field == std::end(fields) ? skip(tag.value) : walk(field->child, tag.value, depth + 1);
  }

  bool read(Tag& tag) {
    std::uint64_t key = 0;
    if (!varint(key)) {
      return false;
    }
    tag.number = key >> 3U;
    tag.wire = static_cast<Wire>(key & 7U);
    switch (tag.wire) {
    case Wire::varint:
    case Wire::counted:
      return varint(tag.value);
    case Wire::eight_bytes:
      tag.value = 8;
      return true;
    case Wire::four_bytes:
      tag.value = 4;
      return true;
    }
    return false;
  }

  OnnxFile skip(std::uint64_t bytes) {
    file_.seekg(static_cast<std::streamoff>(bytes), std::ios::cur);
    at_ += bytes;
    return file_ ? OnnxFile::whole : OnnxFile::invalid;
  }

  bool varint(std::uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const int byte = file_.get();
      if (byte == std::istream::traits_type::eof()) {
        return false;
      }
      ++at_;
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) {
        return true;
      }
    }
    return false;
  }

  std::istream& file_;
  std::uint64_t at_ = 0;
};

}  // namespace

OnnxFile inspect_onnx(std::istream& file) {
  file.seekg(0, std::ios::end);
  const auto bytes = file.tellg();
  file.seekg(0);
  if (!file || bytes < 0) {
    return OnnxFile::invalid;
  }
  return Walker(file).walk(Message::model, static_cast<std::uint64_t>(bytes), 0);
}

}  // namespace rvos_edge
