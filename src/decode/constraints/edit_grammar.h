#pragma once

#include <cstdint>
#include <string>

namespace fathom {

/// Accepts the lists of edits that apply to a text of some number of words (edits.h), byte by byte. A Language of
/// ByteConstraint.
class EditGrammar {
 public:
  enum class Field : uint8_t {
    kBegin,      // nothing yet
    kNone,       // in "none"
    kNextEdit,   // after a line feed
    kStart,      // in the first number
    kEndFirst,   // after the space behind the first number
    kEnd,        // in the second number
    kTextFirst,  // after the space behind the second number
    kEscape,     // after a backslash
    kJoined,     // after \- at the beginning of the text
    kText,       // in the text, which is not empty
  };
  struct State {
    Field field = Field::kBegin;
    bool first = false;  // kEscape: the backslash begins the text
    int64_t least = 0;   // of the current number; kNone: bytes of the word
    int64_t start = 0;   // the first number of the current edit
    int64_t number = 0;  // the current number; after it, the second number of the current edit
  };

  explicit EditGrammar(int64_t words) : words_(words) {}

  State start() const { return {}; }
  bool step(State& state, unsigned char byte) const;
  bool may_end(const State& state, int64_t tokens = 0) const;
  bool must_end(const State&, int64_t) const { return false; }

  /// Returns what may follow, for messages.
  std::string expected(const State& state) const;

 private:
  bool step_number(State& state, unsigned char byte) const;
  /// Returns whether digits can be appended to `number` so that it is from `least` to the number of words.
  bool can_reach(int64_t number, int64_t least) const;

  int64_t words_;
};

}  // namespace fathom
