/// @file
/// Tensors in the memory of a CUDA device, and the stream on which they are worked.
#pragma once

#include <array>
#include <memory>

#include "cuda.hpp"
#include "rvos_edge/engine.hpp"

namespace rvos_edge {

/// The stream of a backend; buffers share it, so that it outlives them.
class Device {
 public:
  Device() : stream_(make_stream()) {}

  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_.get(); }
  /// Wait for all work.
  void synchronize() const { check_cuda(cudaStreamSynchronize(stream()), "cudaStreamSynchronize"); }

  /// Whether a frame's work is being queued: the host must not take part in it.
  bool in_frame = false;

 private:
  Stream stream_;
};

/// A tensor in device memory. Writing, zeroing and copying are queued; reading waits.
class DeviceBuffer final : public Buffer {
 public:
  DeviceBuffer(std::shared_ptr<Device> device, DType dtype, const Shape& shape);
  ~DeviceBuffer() override;

  [[nodiscard]] void* address() noexcept override { return memory_.get(); }
  [[nodiscard]] void* host() noexcept override { return nullptr; }
  void write(const void* data) override;
  [[nodiscard]] const void* read() override;
  void zero() override;
  void copy_from(Buffer& other) override;

 private:
  /// Pinned memory, and a mark that says when the copy from it has been made.
  struct Outgoing {
    PinnedMemory memory;
    Event sent;
  };

  void check_outside(const char* what) const;

  std::shared_ptr<Device> device_;
  DeviceMemory memory_;
  /// One is filled while the other is still on its way.
  std::array<Outgoing, 2> outgoing_;
  std::size_t turn_ = 0;
  PinnedMemory incoming_;
};

/// Working memory that all graphs of a backend share, because they run one after the other.
class Scratch {
 public:
  explicit Scratch(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  /// The memory, replaced by more where it does not suffice; null for 0 bytes.
  [[nodiscard]] BufferPtr at_least(std::size_t bytes);
  /// What there is now.
  [[nodiscard]] const BufferPtr& buffer() const noexcept { return buffer_; }

 private:
  std::shared_ptr<Device> device_;
  BufferPtr buffer_;
};

}  // namespace rvos_edge
