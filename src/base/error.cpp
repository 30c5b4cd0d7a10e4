#include "base/error.h"

namespace fathom {

std::string join_parts(std::initializer_list<TextPart> parts) {
  size_t length = 0;
  for (const TextPart& part : parts) length += part.text().size();
  std::string text;
  text.reserve(length);
  for (const TextPart& part : parts) text += part.text();
  return text;
}

void throw_error(Error::Kind kind, std::initializer_list<TextPart> parts) { throw Error(join_parts(parts), kind); }

}  // namespace fathom
