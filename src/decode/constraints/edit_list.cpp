#include "decode/constraints/edit_list.h"

#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/format.h"
#include "decode/constraints/edit_grammar.h"
#include "decode/constraints/word_diff.h"

namespace fathom {
namespace {

bool ends_word(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/// Numbers words so that equal ones have equal numbers.
class WordNumbers {
 public:
  std::vector<int32_t> of(const std::vector<std::string_view>& words) {
    if (words.size() > size_t{1} << 30) fail("expected at most 2^30 words, found ", words.size());
    std::vector<int32_t> numbers;
    numbers.reserve(words.size());
    for (const std::string_view word : words)
      numbers.push_back(known_.emplace(word, static_cast<int32_t>(known_.size())).first->second);
    return numbers;
  }

 private:
  std::unordered_map<std::string_view, int32_t> known_;
};

/// Returns the text of an edit as it is written in a list, with the space before it.
std::string written(const WordEdit& edit) {
  std::string escaped;
  for (const char c : edit.text) {
    if (c == '\n') {
      escaped += "\\n";
    } else if (c == '\\') {
      escaped += "\\\\";
    } else {
      escaped += c;
    }
  }
  if (edit.start == 0 || escaped.starts_with('\\')) return " " + escaped;
  if (!escaped.starts_with(' ')) return " \\-" + escaped;
  const bool needs_escape = escaped.size() == 1 || escaped[1] == '\\';
  return needs_escape ? " \\s" + escaped.substr(1) : escaped;
}

}  // namespace

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    while (end < text.size() && ends_word(text[end])) ++end;
    while (end < text.size() && !ends_word(text[end])) ++end;
    words.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

std::vector<WordEdit> extract_edits(std::string_view source, std::string_view target) {
  const auto target_words = words_of(target);
  WordNumbers numbers;
  const auto a = numbers.of(words_of(source)), b = numbers.of(target_words);
  std::vector<WordEdit> edits;
  for (const DiffBox& box : diff_words(a, b)) {
    WordEdit edit{box.a, box.a_end};
    for (int64_t i = box.b; i < box.b_end; ++i) edit.text += target_words[static_cast<size_t>(i)];
    edits.push_back(std::move(edit));
  }
  return edits;
}

std::string apply_edits(std::string_view source, std::span<const WordEdit> edits) {
  const auto words = words_of(source);
  std::string text;
  int64_t done = 0;  // words of the source
  const auto copy_to = [&](int64_t end) {
    for (; done < end; ++done) text += words[static_cast<size_t>(done)];
  };
  for (size_t i = 0; i < edits.size(); ++i) {
    const auto& [start, end, replacement] = edits[i];
    if (start < done || end < start || end > std::ssize(words))
      fail("edit ", i + 1, ": expected ", done, " <= start <= end <= ", words.size(), ", found ", start, " and ",
           end);
    copy_to(start);
    text += replacement;
    done = end;
  }
  copy_to(std::ssize(words));
  return text;
}

std::string format_edits(std::span<const WordEdit> edits) {
  std::string list;
  for (const WordEdit& edit : edits) {
    if (edit.start == edit.end && edit.text.empty()) continue;
    if (!list.empty()) list += '\n';
    list += concat(edit.start, ' ', edit.end);
    if (!edit.text.empty()) list += written(edit);
  }
  return list.empty() ? "none" : list;
}

std::vector<WordEdit> parse_edits(std::string_view list, int64_t words) {
  using Field = EditGrammar::Field;
  const EditGrammar grammar(words);
  EditGrammar::State state = grammar.start();
  std::vector<WordEdit> edits;
  std::string text;  // of the current edit
  const auto fail_at = [&](size_t at) {
    const std::string_view rest = list.substr(at);
    fail("list of edits, byte ", at, ": expected ", grammar.expected(state), ", found ",
         rest.empty() ? std::string("the end") : quote(rest));
  };
  const auto end_edit = [&] { edits.push_back({state.start, state.number, std::exchange(text, {})}); };
  for (size_t at = 0; at < list.size(); ++at) {
    const char byte = list[at];
    EditGrammar::State next = state;
    if (!grammar.step(next, static_cast<unsigned char>(byte))) fail_at(at);
    if (next.field == Field::kNextEdit) end_edit();
    if (next.field == Field::kText) {
      if (state.field == Field::kTextFirst && state.start > 0) text = " ";
      const bool escaped = state.field == Field::kEscape;
      text += escaped && byte == 'n' ? '\n' : escaped && byte == 's' ? ' ' : byte;
    }
    state = next;
  }
  if (!grammar.may_end(state)) fail_at(list.size());
  if (state.field != Field::kNone) end_edit();
  return edits;
}

}  // namespace fathom
