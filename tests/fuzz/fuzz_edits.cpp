#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "decode/constraints/edit_list.h"

/// The first byte is a number of words, the others are a list of edits. A list that can be parsed can be applied,
/// and written so that it reads the same again.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fathom;
  if (size == 0) return 0;
  const std::string_view list(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::string text;
  for (int i = 0; i < data[0]; ++i) text += " w";
  const int64_t words = data[0];
  std::vector<WordEdit> edits;
  try {
    edits = parse_edits(list, words);
  } catch (const Error&) {
    return 0;
  }
  const std::string edited = apply_edits(text, edits);
  if (apply_edits(text, parse_edits(format_edits(edits), words)) != edited) std::terminate();
  if (apply_edits(text, extract_edits(text, edited)) != edited) std::terminate();
  return 0;
}
