// Any bytes as an ONNX file: its messages are walked without reading past the end.
#include <cstdint>
#include <sstream>
#include <string>

#include "onnx_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::istringstream file(std::string(reinterpret_cast<const char*>(data), size));
  static_cast<void>(rvos_edge::inspect_onnx(file));
  return 0;
}
