#include <cstddef>
#include <cstdint>
#include <exception>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/spec.h"

namespace fathom {
namespace {

/// Returns one parameter of every type.
const std::vector<Parameter>& parameters() {
  using Type = Parameter::Type;
  static const std::vector<Parameter> all = {
      {.name = "i", .type = Type::kInt, .default_value = "1", .min = 0, .max = 1 << 20},
      {.name = "f", .type = Type::kFloat, .default_value = "0.5", .min = 0, .max = 1},
      {.name = "b", .type = Type::kBool, .default_value = "false"},
      {.name = "s", .type = Type::kString},
      {.name = "c", .type = Type::kChoice, .default_value = "one", .choices = {"one", "two"}},
      {.name = "m", .type = Type::kSpec},
  };
  return all;
}

void check(std::string_view text) {
  const Spec spec = parse_spec(text);
  const Spec again = parse_spec(spec.to_string());
  if (again.name != spec.name || again.values != spec.values) std::terminate();
  const Values values = check_values(spec, parameters());
  if (values.integer("i") < 0 || values.integer("i") > 1 << 20) std::terminate();
  if (!(values.number("f") >= 0 && values.number("f") <= 1)) std::terminate();
  values.boolean("b");
  values.string("c");
}

}  // namespace
}  // namespace fathom

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    fathom::check(text);
  } catch (const fathom::Error&) {
  }
  fathom::parse_size(text);
  return 0;
}
