/// @file
/// Images that the caller owns, and arrays that the library returns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace rvos_edge {

/// Extents of a tensor, outermost first.
using Shape = std::vector<std::int64_t>;

/// Number of elements of a shape.
[[nodiscard]] inline std::size_t count(const Shape& shape) noexcept {
  std::size_t elements = 1;
  for (const std::int64_t extent : shape) {
    elements *= static_cast<std::size_t>(extent);
  }
  return elements;
}

/// Height and width in pixels, height first.
struct Size {
  int height = 0;
  int width = 0;

  friend bool operator==(const Size& a, const Size& b) noexcept { return a.height == b.height && a.width == b.width; }
  friend bool operator!=(const Size& a, const Size& b) noexcept { return !(a == b); }
};

/// A frame of the caller's: uint8 [height, width, channels], BGR, rows `stride` bytes apart.
///
/// A view owns nothing. The memory must stay valid and unchanged until the call that takes the view returns.
struct ImageView {
  const std::uint8_t* data = nullptr;
  int height = 0;
  int width = 0;
  /// 3: blue, green, red. Other numbers are refused.
  int channels = 3;
  /// Bytes from one row to the next; 0 for rows without gaps.
  std::ptrdiff_t stride = 0;
};

/// A dense array in row-major order that owns its memory. Unlike `std::vector`, growing does not fill it.
///
/// Movable, not copyable. Not safe for concurrent use.
template <class T>
class Array {
 public:
  Array() = default;

  /// Change the shape. The contents are undefined afterwards; memory is reused if it suffices.
  void resize(Shape shape) {
    const std::size_t elements = count(shape);
    if (elements > capacity_ || !data_) {
      data_.reset(new T[elements]);
      capacity_ = elements;
    }
    shape_ = std::move(shape);
  }

  /// Release the memory to another owner, such as a NumPy array; the array is empty afterwards.
  [[nodiscard]] std::unique_ptr<T[]> release() noexcept {
    shape_.clear();
    capacity_ = 0;
    return std::move(data_);
  }

  [[nodiscard]] const Shape& shape() const noexcept { return shape_; }
  /// Number of elements; 0 for an array without a shape.
  [[nodiscard]] std::size_t size() const noexcept { return data_ ? count(shape_) : 0; }
  [[nodiscard]] T* data() noexcept { return data_.get(); }
  [[nodiscard]] const T* data() const noexcept { return data_.get(); }
  [[nodiscard]] T& operator[](std::size_t index) noexcept { return data_[index]; }
  [[nodiscard]] const T& operator[](std::size_t index) const noexcept { return data_[index]; }
  [[nodiscard]] T* begin() noexcept { return data(); }
  [[nodiscard]] T* end() noexcept { return data() + size(); }
  [[nodiscard]] const T* begin() const noexcept { return data(); }
  [[nodiscard]] const T* end() const noexcept { return data() + size(); }

 private:
  Shape shape_;
  std::unique_ptr<T[]> data_;
  std::size_t capacity_ = 0;
};

}  // namespace rvos_edge
