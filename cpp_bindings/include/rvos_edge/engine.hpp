/// @file
/// The interface of inference backends: a board of named tensors and graphs bound to it.
///
/// Needed only to write a backend; to segment, include segmenter.hpp. Nothing here locks: `Segmenter` makes sure that
/// one thread at a time uses a backend and its board.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "rvos_edge/api.h"
#include "rvos_edge/bundle.hpp"
#include "rvos_edge/flow.hpp"
#include "rvos_edge/image.hpp"

namespace rvos_edge {

/// Memory of one tensor, on the host or on a device, zeroed when it is made. The object's address is its identity.
class RVOS_EDGE_API Buffer {
 public:
  Buffer(DType dtype, Shape shape) : dtype_(dtype), shape_(std::move(shape)) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  virtual ~Buffer() = default;

  [[nodiscard]] DType dtype() const noexcept { return dtype_; }
  [[nodiscard]] const Shape& shape() const noexcept { return shape_; }
  /// Size of the contents.
  [[nodiscard]] std::size_t bytes() const noexcept { return count(shape_) * dtype_bytes(dtype_); }

  /// Address of the data on the backend's device; constant for the life of the buffer.
  [[nodiscard]] virtual void* address() noexcept = 0;
  /// The same memory if the host may read and write it in place, else null.
  [[nodiscard]] virtual void* host() noexcept = 0;
  /// Copy `bytes()` bytes of host memory into the buffer; they may be reused when the call returns.
  virtual void write(const void* data) = 0;
  /// The contents in host memory, valid until the next run, write, read or swap; waits for queued work.
  [[nodiscard]] virtual const void* read() = 0;
  /// Fill with zeros.
  virtual void zero() = 0;
  /// Copy a buffer of the same backend, dtype and shape into this one, without leaving the device.
  virtual void copy_from(Buffer& other) = 0;

 private:
  DType dtype_;
  Shape shape_;
};

/// A buffer in host memory, aligned to 64 bytes, which an engine reads and writes in place.
class RVOS_EDGE_API HostBuffer : public Buffer {
 public:
  HostBuffer(DType dtype, const Shape& shape);

  [[nodiscard]] void* address() noexcept override { return data_.get(); }
  [[nodiscard]] void* host() noexcept override { return data_.get(); }
  void write(const void* data) override;
  [[nodiscard]] const void* read() override { return data_.get(); }
  void zero() override;
  void copy_from(Buffer& other) override;

 private:
  struct Free {
    void operator()(std::byte* memory) const noexcept;
  };
  std::unique_ptr<std::byte, Free> data_;
};

/// Buffers are shared with whatever was prepared for them (a binding, a recorded frame), so that an address is not
/// reused while it is still known.
using BufferPtr = std::shared_ptr<Buffer>;

/// The slots that join the graphs: an output feeds the input of the same name.
///
/// A slot is a name, a buffer is memory; `swap` exchanges the buffers of two slots. Extents may be symbolic ("Q"
/// queries): `resize` gives a symbol its extent and reallocates the slots that use it. Nothing else allocates.
/// Unknown names throw std::out_of_range, unequal shapes std::invalid_argument.
class RVOS_EDGE_API Board {
 public:
  /// Function that makes a zeroed buffer of the backend.
  using Allocate = std::function<BufferPtr(DType, const Shape&)>;

  /// A slot. Its address is constant for the life of the board; its buffer is not.
  struct Slot {
    TensorSpec spec;
    BufferPtr buffer;
  };

  explicit Board(Allocate allocate) : allocate_(std::move(allocate)) {}

  /// Make a zeroed slot; declaring the same slot again changes nothing. A new symbol has extent 1.
  void declare(const TensorSpec& spec);
  /// Give `symbol` an extent; slots that use it are reallocated, zeroed, when it changes. After an exception the board
  /// is as before.
  void resize(const std::string& symbol, std::int64_t extent);
  /// Exchange the buffers of two slots of equal dtype and shape.
  void swap(std::string_view first, std::string_view second);  // NOLINT(bugprone-exception-escape): not of boards
  /// Copy an array of the slot's shape into it; float32 is rounded if the slot is float16.
  void write(std::string_view name, const void* data, DType dtype, const Shape& shape);
  /// Copy a floating-point slot into `target`, float32 of the slot's size, widening float16.
  void read_float(std::string_view name, float* target);
  /// Fill a slot with zeros.
  void zero(std::string_view name);
  /// Copy one slot into another of equal dtype and shape.
  void copy(std::string_view source, std::string_view target);

  /// The buffer that each slot holds.
  [[nodiscard]] std::map<std::string, BufferPtr> arrangement() const;
  /// Give each slot the buffer that it held when the arrangement was taken.
  void arrange(const std::map<std::string, BufferPtr>& arrangement);

  [[nodiscard]] bool contains(std::string_view name) const noexcept;
  /// The slot of that name.
  [[nodiscard]] const Slot& slot(std::string_view name) const;
  /// Present extents of a slot.
  [[nodiscard]] const Shape& shape(std::string_view name) const { return slot(name).buffer->shape(); }
  /// The buffer that a slot holds now.
  [[nodiscard]] Buffer& buffer(std::string_view name) const { return *slot(name).buffer; }
  /// All buffers in slots; whatever a graph prepared for other buffers may be dropped.
  [[nodiscard]] std::set<const Buffer*> buffers() const;

 private:
  [[nodiscard]] Slot& at(std::string_view name);
  [[nodiscard]] BufferPtr make(const TensorSpec& spec, const std::map<std::string, std::int64_t>& extents) const;

  Allocate allocate_;
  std::map<std::string, Slot, std::less<>> slots_;
  std::map<std::string, std::int64_t> extents_;
};

/// A loaded graph whose inputs and outputs are slots of a board.
class RVOS_EDGE_API Graph {
 public:
  virtual ~Graph() = default;
  /// Run on the buffers that the slots hold now. The run may only be queued; reading an output waits for it.
  virtual void run() = 0;
};

/// A named array in host memory that owns its bytes.
struct HostTensor {
  std::string name;
  DType dtype = DType::float32;
  Shape shape;
  std::vector<std::byte> data;
};

/// A loaded graph that runs on host arrays of any extent: the text graph, once per query, and what teaches queries.
class RVOS_EDGE_API HostGraph {
 public:
  virtual ~HostGraph() = default;
  /// Run on named arrays and return the outputs in the order of the manifest.
  [[nodiscard]] virtual std::vector<HostTensor> run(const std::vector<HostTensor>& inputs) = 0;
};

/// Milliseconds of one stage of a frame.
struct Timing {
  std::string stage;
  double milliseconds = 0;
};

/// Function called with the name of a stage at its end.
using Lap = std::function<void(const char* stage)>;

/// Everything that the work of a frame depends on: frames of equal keys do the same work in the same order.
struct FrameKey {
  /// None without flow.
  std::optional<FlowAction> action;
  bool warm = false;
  int iterations = 0;
  bool encode = false;
  /// Part of the work: all of it, or the graphs before and after the host changed the flow.
  enum class Part { whole, until_flow, answer } part = Part::whole;

  friend bool operator<(const FrameKey& a, const FrameKey& b) noexcept {
    return std::tie(a.action, a.warm, a.iterations, a.encode, a.part) <
           std::tie(b.action, b.warm, b.iterations, b.encode, b.part);
  }
};

/// Loads graphs and owns the board they share.
class RVOS_EDGE_API Backend {
 public:
  virtual ~Backend() = default;

  /// Backend, version and device, for people, such as "OpenVINO 2026.4.1 (cpu)".
  [[nodiscard]] virtual const std::string& name() const noexcept = 0;
  /// Reason for the choice of backend and device. `frame` may change it, so hold the lock of `frame` to read it.
  [[nodiscard]] virtual const std::string& reason() const noexcept = 0;
  /// Tensors of all graphs of this backend.
  [[nodiscard]] virtual Board& board() noexcept = 0;

  /// Load a graph, declare its slots on the board and bind it to them. The graph must not outlive the backend.
  /// @param name  The graph's name in the bundle, for engines that are kept by name.
  /// @throws UserError  The file cannot be loaded or disagrees with `spec`; the message names the file.
  [[nodiscard]] virtual std::unique_ptr<Graph> load(const std::string& name, const std::filesystem::path& path,
                                                    const GraphSpec& spec) = 0;
  /// Load a graph that is not joined to the board; loaded and run on any thread, while others run the board's graphs.
  /// @throws UserError  As `load`.
  [[nodiscard]] virtual std::unique_ptr<HostGraph> load_host(const std::filesystem::path& path,
                                                             const GraphSpec& spec) = 0;

  /// Function that runs graphs and copies, zeroes and swaps slots in an order that depends only on the frame's key. It
  /// neither reads nor writes a slot, because it may be called twice, or not at all if the backend replays a recorded
  /// frame of the same key.
  using Work = std::function<void(const Lap&)>;
  /// Do the work of one frame; reading a slot afterwards waits for it. The default calls and times the work.
  virtual void frame(const FrameKey& key, const Work& work);
  /// Append milliseconds by stage of the last frame, in the order they ran; waits for its end.
  virtual void timings(std::vector<Timing>& target);

 private:
  std::vector<Timing> timings_;
};

/// Options of a backend.
struct BackendOptions {
  /// "auto", "cpu", "cuda", or "cuda:1" for the second GPU.
  std::string device = "auto";
  /// CPU threads; none for one per physical core.
  std::optional<int> threads;
  /// Let a GPU replay whole frames; false times every stage.
  bool record = true;
  /// Reason for the choice; empty if the caller named the backend.
  std::string reason;
};

/// Names of all backends: "onnxruntime", "openvino", "openvino-bf16", "tensorrt", "tensorrt-rtx".
[[nodiscard]] RVOS_EDGE_API std::vector<std::string> backend_names();

/// Backends that are built into this library and can run a bundle on a device ("auto", "cpu" or "cuda").
[[nodiscard]] RVOS_EDGE_API std::vector<std::string> available_backends(const Bundle& bundle,
                                                                        const std::string& device = "auto");

/// Start a backend by its name.
/// @throws UserError  The backend is unknown or not built in, cannot use the device, or an option is out of range.
[[nodiscard]] RVOS_EDGE_API std::unique_ptr<Backend> open_backend(const std::string& name, const Bundle& bundle,
                                                                  const BackendOptions& options = {});

}  // namespace rvos_edge
