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
  std::uint64_t number;
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
      std::uint64_t tag = 0;
      std::uint64_t value = 0;
      if (!varint(tag)) {
        return OnnxFile::invalid;
      }
      const std::uint64_t number = tag >> 3;
      const unsigned kind = tag & 7U;
      if (kind == 0 || kind == 2) {
        if (!varint(value)) {
          return OnnxFile::invalid;
        }
      } else if (kind == 1 || kind == 5) {
        value = kind == 1 ? 8 : 4;
      } else {
        return OnnxFile::invalid;
      }
      if (message == Message::tensor && (number == external_data || (number == data_location && value != 0))) {
        return OnnxFile::external;
      }
      if (kind == 0) {
        continue;
      }
      if (at_ > end || value > end - at_) {
        return OnnxFile::invalid;
      }
      const auto* const field = std::find_if(std::begin(fields), std::end(fields), [=](const Field& candidate) {
        return kind == 2 && candidate.parent == message && candidate.number == number;
      });
      const OnnxFile found = field == std::end(fields) ? skip(value) : walk(field->child, value, depth + 1);
      if (found != OnnxFile::whole) {
        return found;
      }
    }
    return at_ == end ? OnnxFile::whole : OnnxFile::invalid;
  }

 private:
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
