// Any bytes as manifest.json: parsed and wired, or refused with a UserError.
#include "manifest.hpp"
#include "rvos_edge/error.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const std::string_view json(reinterpret_cast<const char*>(data), size);
    rvos_edge::check_wiring(rvos_edge::parse_manifest(json, "manifest.json"), "bundle");
  } catch (const rvos_edge::UserError&) {
  }
  return 0;
}
