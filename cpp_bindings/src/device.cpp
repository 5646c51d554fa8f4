#include "device.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace rvos_edge {

DeviceBuffer::DeviceBuffer(std::shared_ptr<Device> device, DType dtype, const Shape& shape)
    : Buffer(dtype, shape), device_(std::move(device)) {
  const CurrentDevice here = device_->current();
  memory_ = allocate_device(std::max<std::size_t>(bytes(), 1));
  DeviceBuffer::zero();
}

DeviceBuffer::~DeviceBuffer() {
  // Work that uses the memory may still be queued.
  cudaStreamSynchronize(device_->stream());
}

void DeviceBuffer::write(const void* data) {
  check_outside("written");
  const CurrentDevice here = device_->current();
  Outgoing& out = outgoing_[turn_];
  turn_ = (turn_ + 1) % outgoing_.size();
  if (!out.memory) {
    out = {allocate_pinned(bytes()), make_event(false)};
  }
  // An event that was never recorded does not wait.
  check_cuda(cudaEventSynchronize(out.sent.get()), "cudaEventSynchronize");
  std::memcpy(out.memory.get(), data, bytes());
  check_cuda(cudaMemcpyAsync(memory_.get(), out.memory.get(), bytes(), cudaMemcpyHostToDevice, device_->stream()),
             "cudaMemcpyAsync");
  check_cuda(cudaEventRecord(out.sent.get(), device_->stream()), "cudaEventRecord");
}

const void* DeviceBuffer::read() {
  check_outside("read");
  const CurrentDevice here = device_->current();
  if (!incoming_) {
    incoming_ = allocate_pinned(bytes());
  }
  check_cuda(cudaMemcpyAsync(incoming_.get(), memory_.get(), bytes(), cudaMemcpyDeviceToHost, device_->stream()),
             "cudaMemcpyAsync");
  device_->synchronize();
  return incoming_.get();
}

void DeviceBuffer::zero() {
  const CurrentDevice here = device_->current();
  check_cuda(cudaMemsetAsync(memory_.get(), 0, bytes(), device_->stream()), "cudaMemsetAsync");
}

void DeviceBuffer::copy_from(Buffer& other) {
  const CurrentDevice here = device_->current();
  check_cuda(cudaMemcpyAsync(memory_.get(), other.address(), bytes(), cudaMemcpyDeviceToDevice, device_->stream()),
             "cudaMemcpyAsync");
}

void DeviceBuffer::check_outside(const char* what) const {
  if (device_->in_frame) {
    throw std::logic_error("a slot was " + std::string(what) +
                           " within the work of a frame, which may be replayed without the host");
  }
}

BufferPtr Scratch::at_least(std::size_t bytes) {
  if (bytes != 0 && (!buffer_ || buffer_->bytes() < bytes)) {
    buffer_ = std::make_shared<DeviceBuffer>(device_, DType::uint8, Shape{static_cast<std::int64_t>(bytes)});
  }
  return bytes == 0 ? nullptr : buffer_;
}

}  // namespace rvos_edge
