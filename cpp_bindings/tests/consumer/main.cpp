// consumer [BUNDLE]: runs one grey frame through the installed library; without a bundle it only checks an error.
#include <cstdint>
#include <iostream>
#include <rvos_edge/segmenter.hpp>
#include <vector>

extern "C" int refuses_a_missing_bundle(const char* path);

int main(int argc, char** argv) {
  if (refuses_a_missing_bundle("/nowhere/at-all") == 0) {
    std::cerr << "a missing bundle was not refused\n";
    return 1;
  }
  if (argc < 2) {
    return 0;
  }
  rvos_edge::Segmenter segmenter(rvos_edge::Bundle::open(argv[1]));
  segmenter.set_queries({"a dog", "a red ball"});
  const std::vector<std::uint8_t> grey(48 * 64 * 3, 128);
  const rvos_edge::Result result = segmenter.step({grey.data(), 48, 64});
  std::cout << segmenter.backend_name() << ": " << result.masks.shape()[0] << " masks\n";
  return result.masks.shape() == rvos_edge::Shape{2, 48, 64} ? 0 : 1;
}
