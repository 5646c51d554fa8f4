#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>

#include "half.hpp"
#include "rvos_edge/engine.hpp"
#include "rvos_edge/error.hpp"

namespace rvos_edge {
namespace {

constexpr std::size_t alignment = 64;

std::string about(std::string_view name) {
  return "slot '" + std::string(name) + "'";
}

}  // namespace

void HostBuffer::Free::operator()(std::byte* memory) const noexcept {
  ::operator delete (memory, std::align_val_t{alignment});
}

HostBuffer::HostBuffer(DType dtype, const Shape& shape)
    : Buffer(dtype, shape),
      data_(static_cast<std::byte*>(::operator new (std::max<std::size_t>(bytes(), 1), std::align_val_t{alignment}))) {
  std::memset(data_.get(), 0, bytes());
}

void HostBuffer::write(const void* data) {
  std::memcpy(data_.get(), data, bytes());
}

void HostBuffer::zero() {
  std::memset(data_.get(), 0, bytes());
}

void HostBuffer::copy_from(Buffer& other) {
  write(other.read());
}

BufferPtr Board::make(const TensorSpec& spec, const std::map<std::string, std::int64_t>& extents) const {
  Shape shape;
  std::size_t elements = 1;
  for (const Dim& dim : spec.shape) {
    const auto known = extents.find(dim.symbol);
    shape.push_back(dim.symbol.empty() ? dim.extent : known == extents.end() ? 1 : known->second);
    // A manifest may state any extent; refuse those that exceed memory.
    const auto most = static_cast<std::int64_t>(std::numeric_limits<std::int32_t>::max());
    if (shape.back() < 1 || shape.back() > most / static_cast<std::int64_t>(elements)) {
      throw UserError(ErrorCode::bad_bundle, "tensor '" + spec.name + "' has an extent of " +
                                                 std::to_string(shape.back()) +
                                                 " in manifest.json; export the bundle again.");
    }
    elements *= static_cast<std::size_t>(shape.back());
  }
  return allocate_(spec.dtype, shape);
}

void Board::declare(const TensorSpec& spec) {
  const auto found = slots_.find(spec.name);
  if (found == slots_.end()) {
    slots_.emplace(spec.name, Slot{spec, make(spec, extents_)});
  } else if (found->second.spec != spec) {
    throw std::invalid_argument(about(spec.name) + " is already of another dtype or shape");
  }
}

void Board::resize(const std::string& symbol, std::int64_t extent) {
  const auto known = extents_.find(symbol);
  if ((known == extents_.end() ? 1 : known->second) == extent) {
    return;
  }
  auto extents = extents_;
  extents[symbol] = extent;
  // All buffers are made before any is exchanged: without memory the board stays as it was.
  std::vector<std::pair<Slot*, BufferPtr>> made;
  for (auto& [name, slot] : slots_) {
    const auto& shape = slot.spec.shape;
    if (std::any_of(shape.begin(), shape.end(), [&symbol](const Dim& dim) { return dim.symbol == symbol; })) {
      made.emplace_back(&slot, make(slot.spec, extents));
    }
  }
  for (auto& [slot, buffer] : made) {
    slot->buffer = std::move(buffer);
  }
  extents_ = std::move(extents);
}

void Board::swap(std::string_view first, std::string_view second) {  // NOLINT(bugprone-exception-escape)
  Slot& a = at(first);
  Slot& b = at(second);
  if (a.buffer->dtype() != b.buffer->dtype() || a.buffer->shape() != b.buffer->shape()) {
    throw std::invalid_argument(about(first) + " and " + about(second) + " differ and cannot swap");
  }
  std::swap(a.buffer, b.buffer);
}

void Board::write(std::string_view name, const void* data, DType dtype, const Shape& shape) {
  Buffer& buffer = *at(name).buffer;
  if (shape != buffer.shape()) {
    throw std::invalid_argument(about(name) + " has another shape than what is written to it");
  }
  if (dtype == buffer.dtype()) {
    buffer.write(data);
    return;
  }
  if (dtype != DType::float32 || buffer.dtype() != DType::float16) {
    throw std::invalid_argument(about(name) + " has another dtype than what is written to it");
  }
  const auto* values = static_cast<const float*>(data);
  std::vector<std::uint16_t> halves(count(shape));
  std::transform(values, values + halves.size(), halves.begin(), float_to_half);
  buffer.write(halves.data());
}

void Board::read_float(std::string_view name, float* target) {
  Buffer& buffer = *at(name).buffer;
  const std::size_t elements = count(buffer.shape());
  const void* data = buffer.read();
  if (buffer.dtype() == DType::float32) {
    std::memcpy(target, data, buffer.bytes());
  } else if (buffer.dtype() == DType::float16) {
    const auto* halves = static_cast<const std::uint16_t*>(data);
    std::transform(halves, halves + elements, target, half_to_float);
  } else {
    throw std::invalid_argument(about(name) + " holds no floating-point numbers");
  }
}

void Board::zero(std::string_view name) {
  at(name).buffer->zero();
}

void Board::copy(std::string_view source, std::string_view target) {
  Buffer& from = *at(source).buffer;
  Buffer& to = *at(target).buffer;
  if (from.dtype() != to.dtype() || from.shape() != to.shape()) {
    throw std::invalid_argument(about(source) + " and " + about(target) + " differ and cannot be copied");
  }
  to.copy_from(from);
}

std::map<std::string, BufferPtr> Board::arrangement() const {
  std::map<std::string, BufferPtr> held;
  for (const auto& [name, slot] : slots_) {
    held[name] = slot.buffer;
  }
  return held;
}

void Board::arrange(const std::map<std::string, BufferPtr>& arrangement) {
  for (const auto& [name, buffer] : arrangement) {
    at(name).buffer = buffer;
  }
}

bool Board::contains(std::string_view name) const noexcept {
  return slots_.find(name) != slots_.end();
}

const Board::Slot& Board::slot(std::string_view name) const {
  const auto found = slots_.find(name);
  if (found == slots_.end()) {
    throw std::out_of_range("there is no " + about(name));
  }
  return found->second;
}

Board::Slot& Board::at(std::string_view name) {
  return const_cast<Slot&>(slot(name));
}

std::set<const Buffer*> Board::buffers() const {
  std::set<const Buffer*> live;
  for (const auto& [name, slot] : slots_) {
    live.insert(slot.buffer.get());
  }
  return live;
}

void Backend::frame(const FrameKey& /*key*/, const Work& work) {
  using Clock = std::chrono::steady_clock;
  timings_.clear();
  auto mark = Clock::now();
  work([this, &mark](const char* stage) {
    const auto now = Clock::now();
    timings_.push_back({stage, std::chrono::duration<double, std::milli>(now - mark).count()});
    mark = now;
  });
}

void Backend::timings(std::vector<Timing>& target) {
  target.insert(target.end(), timings_.begin(), timings_.end());
}

}  // namespace rvos_edge
