#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace fathom {

/// A compiled PCRE2 pattern over UTF-8 with Unicode properties. `$` matches only at the end of the text.
/// Thread-safe.
class Regex {
 public:
  /// Throws Error that quotes the pattern and names the byte if it is malformed.
  explicit Regex(const char* pattern);
  ~Regex();
  Regex(Regex&&) noexcept;

  /// Returns `text` (UTF-8) with all matches replaced. replacement: in the extended form of pcre2_substitute
  /// ("\\L$0").
  std::string replace(std::string_view text, const char* replacement) const;

  /// The scratch memory of matching. Not thread-safe: use one per thread.
  class Matcher {
   public:
    Matcher();
    ~Matcher();
    struct Match {
      size_t begin, end;
    };
    /// Returns the first non-empty match in `text` (UTF-8) that begins at byte `from` or later; {size, size} if
    /// there is none. Throws Error if PCRE2 fails, for example at its stack limit of 16 MiB.
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
