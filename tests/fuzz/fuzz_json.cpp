#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>

#include "base/json.h"

namespace fathom {
namespace {

/// Checks that a parsed value round-trips through its text, on one line and indented.
void check(std::string_view text) {
  const Json json = Json::parse(text);
  if (!(Json::parse(json.dump()) == json) || !(Json::parse(json.dump(1)) == json)) std::terminate();
  if (!json.is_array()) return;
  size_t items = 0;
  Json::parse_items(text, [&](const Json&) { ++items; });
  if (items != json.size()) std::terminate();
}

}  // namespace
}  // namespace fathom

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    fathom::check({reinterpret_cast<const char*>(data), size});
  } catch (const fathom::JsonError&) {
  }
  return 0;
}
