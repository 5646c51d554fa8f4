// Any bytes as tokenizer.json, and the bytes after a NUL as a query.
#include <stdexcept>

#include "rvos_edge/error.hpp"
#include "text.hpp"
#include "tokenizer.hpp"
#include "unicode.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::size_t cut = bytes.find('\0');
  const std::string_view json = bytes.substr(0, cut);
  const std::string query(cut == std::string_view::npos ? bytes : bytes.substr(cut + 1));
  try {
    const rvos_edge::Tokenizer tokenizer(rvos_edge::parse_tokenizer(json));
    static_cast<void>(tokenizer.encode(rvos_edge::decode_utf8(query.substr(0, 1000))));
  } catch (const std::runtime_error&) {
  }
  try {
    static_cast<void>(rvos_edge::check_queries({query}));
  } catch (const rvos_edge::UserError&) {
  }
  return 0;
}
