#include "decode/string_set.h"

#include <algorithm>

#include "base/error.h"

namespace fathom {

StringSet::StringSet(std::string text, std::vector<Part> parts) : text_(std::move(text)), parts_(std::move(parts)) {
  if (parts_.empty()) fail("a set of strings needs at least one string");
  for (const Part& part : parts_)
    if (part.begin >= part.end || part.end > text_.size()) fail("a set of strings has an empty string");
  const auto view = [&](const Part& part) {
    return std::string_view(text_).substr(part.begin, part.end - part.begin);
  };
  std::ranges::sort(parts_, [&](const Part& a, const Part& b) {
    const int order = view(a).compare(view(b));
    return order != 0 ? order < 0 : a.begin < b.begin;
  });
  const auto repeated = std::ranges::unique(parts_, {}, view);
  parts_.erase(repeated.begin(), repeated.end());
}

bool StringSet::step(Prefix& prefix, unsigned char byte) const {
  // a string that ends here sorts before those that continue
  const auto next_byte = [&](const Part& part) {
    const size_t at = part.begin + prefix.bytes;
    return at < part.end ? int{static_cast<unsigned char>(text_[at])} : -1;
  };
  const auto begin = parts_.begin() + static_cast<ptrdiff_t>(prefix.first);
  const auto end = parts_.begin() + static_cast<ptrdiff_t>(prefix.last);
  if (prefix.count() == 1) {
    if (next_byte(*begin) != byte) return false;
    ++prefix.bytes;
    return true;
  }
  const auto [first, last] = std::ranges::equal_range(begin, end, int{byte}, {}, next_byte);
  if (first == last) return false;
  prefix = {static_cast<size_t>(first - parts_.begin()), static_cast<size_t>(last - parts_.begin()),
            prefix.bytes + 1};
  return true;
}

}  // namespace fathom
