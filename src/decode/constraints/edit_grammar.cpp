#include "decode/constraints/edit_grammar.h"

#include <string_view>

#include "base/error.h"

namespace fathom {
namespace {

constexpr std::string_view kNoEdits = "none";

bool is_digit(unsigned char byte) { return byte >= '0' && byte <= '9'; }

}  // namespace

bool EditGrammar::can_reach(int64_t number, int64_t least) const {
  if (number == 0) return least == 0;  // no leading zeros
  for (int64_t low = number, high = number; low <= words_; low *= 10, high = high * 10 + 9)
    if (high >= least) return true;
  return false;
}

bool EditGrammar::step_number(State& state, unsigned char byte) const {
  const bool first = state.field != Field::kStart && state.field != Field::kEnd;
  if (!is_digit(byte) || (!first && state.number == 0)) return false;
  const int64_t number = (first ? 0 : state.number * 10) + (byte - '0');
  if (!can_reach(number, state.least)) return false;
  state.number = number;
  if (first) state.field = state.field == Field::kEndFirst ? Field::kEnd : Field::kStart;
  return true;
}

bool EditGrammar::step(State& state, unsigned char byte) const {
  switch (state.field) {
    case Field::kBegin:
      if (byte != 'n') return step_number(state, byte);
      state.field = Field::kNone;
      state.least = 1;
      return true;
    case Field::kNone:
      return state.least < std::ssize(kNoEdits) && byte == static_cast<unsigned char>(kNoEdits[state.least++]);
    case Field::kNextEdit:
    case Field::kEndFirst:
      return step_number(state, byte);
    case Field::kStart:
      if (byte != ' ') return step_number(state, byte);
      if (state.number < state.least) return false;
      state.start = state.least = state.number;
      state.field = Field::kEndFirst;
      return true;
    case Field::kEnd:
      if (byte != ' ' && byte != '\n') return step_number(state, byte);
      if (state.number < state.least || (byte == '\n' && state.number == state.start)) return false;
      state.least = state.number;
      state.field = byte == ' ' ? Field::kTextFirst : Field::kNextEdit;
      return true;
    case Field::kEscape:
      if (byte != 'n' && byte != 's' && byte != '\\' && !(byte == '-' && state.first)) return false;
      state.field = byte == '-' ? Field::kJoined : Field::kText;
      return true;
    case Field::kTextFirst:
    case Field::kJoined:
    case Field::kText:
      if (byte == '\n') {
        if (state.field != Field::kText) return false;
        state.field = Field::kNextEdit;
        return true;
      }
      state.first = state.field == Field::kTextFirst;
      state.field = byte == '\\' ? Field::kEscape : Field::kText;
      return true;
  }
  return false;
}

bool EditGrammar::may_end(const State& state, int64_t) const {
  if (state.field == Field::kNone) return state.least == std::ssize(kNoEdits);
  if (state.field == Field::kEnd) return state.number >= state.least && state.number > state.start;
  return state.field == Field::kText;
}

std::string EditGrammar::expected(const State& state) const {
  const auto number = [&](int64_t least) { return concat("a number from ", least, " to ", words_); };
  switch (state.field) {
    case Field::kBegin:
      return concat("\"none\" or ", number(0));
    case Field::kNone:
      return "\"none\" alone";
    case Field::kNextEdit:
    case Field::kEndFirst:
      return number(state.least);
    case Field::kStart:
      return concat(number(state.least), " and a space");
    case Field::kEnd:
      return concat(number(state.least), ", then a space and text, or, if words are removed, the end of the line");
    case Field::kEscape:
      return state.first ? "\\n, \\s, \\\\ or \\-" : "\\n, \\s or \\\\";
    case Field::kTextFirst:
    case Field::kJoined:
      return "text";
    case Field::kText:
      return "text or the end of the line";
  }
  return "";
}

}  // namespace fathom
