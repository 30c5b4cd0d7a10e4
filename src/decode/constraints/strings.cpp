// The generated text is one of a list of strings, in any tokenization.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file_map.h"
#include "base/format.h"
#include "decode/byte_constraint.h"
#include "decode/constraint.h"
#include "decode/string_set.h"

namespace fathom {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 30;  // of the file; bounds the memory

/// The texts of a StringSet.
class StringLanguage {
 public:
  using State = StringSet::Prefix;
  explicit StringLanguage(StringSet strings) : strings_(std::move(strings)) {}
  State start() const { return strings_.start(); }
  bool step(State& state, unsigned char byte) const { return strings_.step(state, byte); }
  bool may_end(const State& state, int64_t) const { return strings_.is_complete(state); }
  bool must_end(const State&, int64_t) const { return false; }
  const StringSet& strings() const { return strings_; }

 private:
  StringSet strings_;
};

/// Collects strings in one text. space: each string is also allowed after one space.
class StringCollector {
 public:
  explicit StringCollector(bool space) : space_(space) {}
  void add(std::string_view string) {
    const bool spaced = space_ && !string.starts_with(' ');
    if (spaced) text_ += ' ';
    const size_t begin = text_.size(), end = begin + string.size();
    text_ += string;
    parts_.push_back({begin, end});
    if (spaced) parts_.push_back({begin - 1, end});
  }
  bool empty() const { return parts_.empty(); }
  StringSet finish() { return StringSet(std::move(text_), std::move(parts_)); }

 private:
  bool space_;
  std::string text_;
  std::vector<StringSet::Part> parts_;
};

/// Calls visit(string) for each line that is not empty, without its line end (LF or CR LF).
template <class Visit>
void for_each_line(std::string_view text, const Visit& visit) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) visit(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

StringSet read_strings(const Values& values) {
  if (values.has("file") == values.has("list")) fail_usage("strings: expected one of file=FILE and list=(a|b|c)");
  StringCollector collector(values.boolean("space"));
  if (values.has("file")) {
    const std::string& path = values.string("file");
    const FileMap file(path);
    if (file.text().size() > kMaxBytes)
      fail(path, ": expected at most ", format_bytes(kMaxBytes), " of strings, found ",
           format_bytes(static_cast<double>(file.text().size())));
    for_each_line(file.text(), [&](std::string_view line) { collector.add(line); });
    if (collector.empty()) fail(path, ": expected at least one string, one per line; the file has none");
    return collector.finish();
  }
  std::string_view list = values.string("list");
  for (size_t number = 1;; ++number) {
    const size_t end = std::min(list.find('|'), list.size());
    if (end == 0) fail_usage("strings: list: string ", number, " is empty");
    collector.add(list.substr(0, end));
    if (end == list.size()) return collector.finish();
    list.remove_prefix(end + 1);
  }
}

std::shared_ptr<const Constraint> make_strings(const Values& values, const ConstraintSetup& setup) {
  auto tokens = std::make_shared<const TokenBytes>(*setup.tokenizer);
  StringSet strings = read_strings(values);
  for (size_t i = 0; i < strings.size(); ++i) {
    if (const auto at = tokens->find_unspellable(strings[i]))
      fail("strings: the vocabulary cannot spell ", quote(strings[i]), ": no token for its byte ", *at);
  }
  return std::make_shared<ByteConstraint<StringLanguage>>(std::move(tokens), StringLanguage(std::move(strings)));
}

}  // namespace

ConstraintEntry strings_method() {
  using Type = Parameter::Type;
  return {{.name = "strings",
           .summary = "the text is one of a list of strings, in any tokenization",
           .needs = "any model",
           .time = "O(v) per token, and O(log n) per byte that is tried; n: strings",
           .memory = "the bytes of the strings and 16 bytes for each",
           .parameters = {{.name = "file", .type = Type::kString, .summary = "a file with one string per line"},
                          {.name = "list", .type = Type::kString, .summary = "the strings, separated by |"},
                          {.name = "space",
                           .type = Type::kBool,
                           .default_value = "false",
                           .summary = "also allow one space before a string, as after \"Answer:\""}}},
          make_strings};
}

}  // namespace fathom
