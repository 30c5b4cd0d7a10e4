#include "token_list.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/format.h"

namespace fathom {

std::vector<int32_t> parse_token_list(std::string_view text, const std::string& source) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  std::vector<int32_t> ids;
  for (size_t at = text.find_first_not_of(kSpace); at < text.size();) {
    const size_t end = std::min(text.find_first_of(kSpace, at), text.size());
    const std::string_view word = text.substr(at, end - at);
    int32_t id = 0;
    const auto parsed = std::from_chars(word.begin(), word.end(), id);
    if (parsed.ec != std::errc() || parsed.ptr != word.end()) {
      fail(source, ": byte ", at, ": expected a token id, found ", quote(word));
    }
    ids.push_back(id);
    at = text.find_first_not_of(kSpace, end);
  }
  return ids;
}

}  // namespace fathom
