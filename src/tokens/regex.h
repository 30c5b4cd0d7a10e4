#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace fathom {

/// A compiled PCRE2 pattern over UTF-8 with Unicode properties; `$` is the end of the text only. Thread-safe.
class Regex {
 public:
  /// Throws Error that quotes the pattern and names the byte when it is malformed.
  explicit Regex(const char* pattern);
  ~Regex();
  Regex(Regex&&) noexcept;

  /// All matches in `text` (UTF-8) replaced; `replacement` as in pcre2_substitute's extended form ("\\L$0").
  std::string replace(std::string_view text, const char* replacement) const;

  /// The scratch memory of matching; one per thread at work.
  class Matcher {
   public:
    Matcher();
    ~Matcher();
    struct Match {
      size_t begin, end;
    };
    /// The first match in `text` (UTF-8) at or behind `from` that is not empty; {size, size} if there is none.
    /// Throws Error if it needs more memory than is sensible.
    Match find(const Regex& regex, std::string_view text, size_t from);

   private:
    struct Memory;
    std::unique_ptr<Memory> memory_;
  };

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace fathom
