#include "arrays.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include "rvos_edge/error.hpp"

namespace rvos_edge_python {
namespace {

using rvos_edge::ErrorCode;
using rvos_edge::UserError;

constexpr std::size_t shown_characters = 40;

std::string text(nb::handle object) {
  return nb::cast<std::string>(nb::str(object));
}

std::string class_name(nb::handle object) {
  return text(object.type().attr("__name__"));
}

std::string shorten(const nb::object& string) {
  if (nb::len(string) <= shown_characters) {
    return text(string);
  }
  return text(nb::steal(PyUnicode_Substring(string.ptr(), 0, shown_characters - 3))) + "...";
}

/// UTF-8, with lone surrogates encoded too.
std::string utf8(nb::handle string) {
  const nb::object bytes = nb::steal(PyUnicode_AsEncodedString(string.ptr(), "utf-8", "surrogatepass"));
  if (!bytes.is_valid()) {
    nb::raise_python_error();
  }
  return {PyBytes_AS_STRING(bytes.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(bytes.ptr()))};
}

template <class Shown, class T>
nb::object to_numpy(rvos_edge::Array<T>& array) {
  static_assert(sizeof(Shown) == sizeof(T));
  const rvos_edge::Shape shape = array.shape();
  const std::vector<std::size_t> extents(shape.begin(), shape.end());
  T* const data = array.release().release();
  const nb::capsule owner(data, [](void* memory) noexcept { delete[] static_cast<T*>(memory); });
  return nb::cast(nb::ndarray<nb::numpy, Shown>(data, extents.size(), extents.data(), owner));
}

}  // namespace

Frame view_frame(nb::handle frame) {
  if (!nb::isinstance(frame, nb::module_::import_("numpy").attr("ndarray"))) {
    throw UserError(ErrorCode::bad_frame,
                    "a frame must be a uint8 array [H,W,3] in BGR, not " + class_name(frame) + ".");
  }
  nb::ndarray<nb::ro> array;
  if (!nb::try_cast(frame, array, false) || array.dtype() != nb::dtype<std::uint8_t>() || array.ndim() != 3 ||
      array.shape(2) != 3 || array.size() == 0) {
    throw UserError(ErrorCode::bad_frame,
                    "a frame must be a uint8 array [H,W,3] in BGR, not " + text(frame.attr("dtype")) + " of shape " +
                        text(nb::steal(PySequence_List(frame.attr("shape").ptr()))) + "; convert it.");
  }
  const auto height = array.shape(0);
  const auto width = array.shape(1);
  // The stride of an axis of one element is arbitrary.
  const bool pixels = array.stride(2) == 1 && (width == 1 || array.stride(1) == 3);
  const bool rows = height == 1 || array.stride(0) >= static_cast<std::int64_t>(3 * width);
  Frame out;
  out.view.height = static_cast<int>(height);
  out.view.width = static_cast<int>(width);
  if (pixels && rows) {
    out.owner = nb::borrow(frame);
    out.view.stride = height == 1 ? 0 : static_cast<std::ptrdiff_t>(array.stride(0));
  } else {
    out.owner = nb::module_::import_("numpy").attr("ascontiguousarray")(frame);
    array = nb::cast<nb::ndarray<nb::ro>>(out.owner);
  }
  out.view.data = static_cast<const std::uint8_t*>(array.data());
  return out;
}

std::vector<std::string> to_queries(nb::handle queries) {
  if (PyUnicode_Check(queries.ptr()) || PyBytes_Check(queries.ptr())) {
    throw UserError(ErrorCode::bad_query, "queries must be a list of sentences, not the string '" +
                                              shorten(nb::str(queries)) + "'; put it in a list.");
  }
  std::vector<std::string> out;
  for (const nb::handle query : nb::iter(queries)) {
    if (!PyUnicode_Check(query.ptr())) {
      throw UserError(ErrorCode::bad_query,
                      "a query must be a string, not " + class_name(query) + "; give a sentence.");
    }
    out.push_back(utf8(query));
  }
  return out;
}

nb::object to_bool(rvos_edge::Array<std::uint8_t>& array) {
  return to_numpy<bool>(array);
}

nb::object to_float(rvos_edge::Array<float>& array) {
  return to_numpy<float>(array);
}

}  // namespace rvos_edge_python
