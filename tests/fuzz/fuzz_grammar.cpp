#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "decode/grammar/gbnf.h"
#include "decode/grammar/json_schema.h"

/// The first byte chooses the notation: a grammar in GBNF, or a JSON schema. A grammar that can be parsed has edges
/// between its own states alone.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fathom;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    const Grammar grammar =
        data[0] % 2 == 0 ? parse_gbnf(text, "grammar") : json_schema_grammar(Json::parse(text), "schema");
    for (int32_t state = 0; state < grammar.states(); ++state)
      for (const Grammar::Edge& edge : grammar.edges(state))
        if (edge.next < 0 || edge.next >= grammar.states()) std::abort();
  } catch (const Error&) {
    return 0;
  }
  return 0;
}
