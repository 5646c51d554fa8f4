/// @file
/// Tensors in the memory of a CUDA device, and the stream that works on them.
#pragma once

#include <array>
#include <memory>

#include "cuda.hpp"
#include "rvos_edge/engine.hpp"

namespace rvos_edge {

/// A device and the stream of a backend, shared with its buffers so that it outlives them.
class Device {
 public:
  explicit Device(int index) : index_(index) {
    const CurrentDevice here = current();
    stream_ = make_stream();
  }

  /// Make the device current, as long as what is returned lives.
  [[nodiscard]] CurrentDevice current() const { return CurrentDevice(index_); }

  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_.get(); }
  /// Wait for all work.
  void synchronize() const { check_cuda(cudaStreamSynchronize(stream()), "cudaStreamSynchronize"); }

  /// True while a frame's work is queued, when the host must not read or write slots.
  bool in_frame = false;

 private:
  int index_;
  Stream stream_;
};

/// A tensor in device memory. Writing, zeroing and copying are queued; reading waits.
class DeviceBuffer final : public Buffer {
 public:
  DeviceBuffer(std::shared_ptr<Device> device, DType dtype, const Shape& shape);
  ~DeviceBuffer() override;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  [[nodiscard]] void* address() noexcept override { return memory_.get(); }
  [[nodiscard]] void* host() noexcept override { return nullptr; }
  void write(const void* data) override;
  [[nodiscard]] const void* read() override;
  void zero() override;
  void copy_from(Buffer& other) override;

 private:
  /// Pinned memory, and the event that follows the copy from it.
  struct Outgoing {
    PinnedMemory memory;
    Event sent;
  };

  void check_outside(const char* what) const;

  std::shared_ptr<Device> device_;
  DeviceMemory memory_;
  /// One is filled while the other is being copied.
  std::array<Outgoing, 2> outgoing_;
  std::size_t turn_ = 0;
  PinnedMemory incoming_;
};

/// Working memory that all graphs of a backend share, since they run one after the other.
class Scratch {
 public:
  explicit Scratch(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  /// The memory, replaced by a larger piece if it does not suffice; null for 0 bytes.
  [[nodiscard]] BufferPtr at_least(std::size_t bytes);
  /// The current memory, or null.
  [[nodiscard]] const BufferPtr& buffer() const noexcept { return buffer_; }

 private:
  std::shared_ptr<Device> device_;
  BufferPtr buffer_;
};

}  // namespace rvos_edge
