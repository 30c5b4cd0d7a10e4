#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "train/training_tasks.h"

// Parts of training tasks: keys and values, wordings, and the text around facts.
namespace fathom::train {

/// Returns the distinct words of a random passage with 4 to 10 lower-case letters, without those in evaluation's
/// lists of nouns and adjectives.
std::vector<std::string> passage_words(eval::Rng& rng, const ProseSource& prose);

/// Draws groups of hex digits without five decimal digits in a row. In half of the texts some groups always begin
/// with the same digit, as the third group of a UUID does.
class HexGroups {
 public:
  /// sizes: digits of each group.
  HexGroups(eval::Rng& rng, std::vector<int> sizes);
  /// Returns a group; index: of the group, from 0.
  std::string draw(eval::Rng& rng, size_t index) const;
  size_t count() const { return sizes_.size(); }

 private:
  std::vector<int> sizes_;
  std::string heads_;  // fixed first digit of each group; a space: drawn at random
};

/// The text for a placeholder of a template.
struct Placeholder {
  char name;
  std::string_view text;
};
/// Returns the template `form` with each {name} of `parts` replaced by its text. Other braces are kept.
std::string filled(std::string_view form, std::initializer_list<Placeholder> parts);
/// Returns `text` with its first letter in upper case.
std::string capital(std::string text);

/// Draws keys of one kind (person, adjective and noun, nonsense, letters with digits, hex groups, words of a
/// passage). All are distinct and none is a part of another. In some texts many differ from an earlier key in one
/// part only.
class FactKeys {
 public:
  /// bytes: length of the text; count: expected number of keys; hex: keys are hex groups, otherwise of any kind.
  FactKeys(eval::Rng& rng, const ProseSource& prose, int64_t bytes, int64_t count, bool hex = false);
  /// Returns keys that are nouns ("old badge", "door code").
  static FactKeys nouns(eval::Rng& rng, const ProseSource& prose);
  /// Returns the next key.
  std::string next();

 private:
  enum class Kind { kName, kWords, kNonsense, kCode, kHex, kPassage, kNoun };
  std::string part(size_t index);
  void draw_kind(int64_t bytes, int64_t count, bool hex);

  eval::Rng& rng_;
  Kind kind_;
  bool alike_;              // many keys differ from an earlier one in one part
  std::vector<int> sizes_;  // sizes of the parts: letters, digits, syllables
  std::optional<HexGroups> hex_;
  std::string before_, between_;
  bool capitals_ = false;
  std::vector<std::string> words_;
  std::vector<std::vector<std::string>> drawn_;
  std::set<std::string> used_;
};

/// Draws values of facts: numbers of 2, 3, 4, 8 or 9 digits, hex groups, words, letters with digits. Most texts
/// have one kind. Values are distinct while the kind has enough of them.
class FactValues {
 public:
  /// bytes: length of the text; hex: values are hex groups, otherwise of any kind.
  FactValues(eval::Rng& rng, const ProseSource& prose, int64_t bytes, bool hex = false);
  /// Returns the next value.
  std::string next();

 private:
  enum class Kind { kNumber, kHex, kWord, kNonsense, kMixed };
  void draw_kind(bool hex = false);
  std::string draw();

  eval::Rng& rng_;
  int64_t bytes_;
  Kind kind_ = Kind::kNumber;
  bool any_kind_;
  std::vector<int> sizes_;
  std::optional<HexGroups> hex_;
  std::vector<std::string> words_;
  std::set<std::string> used_;
};

/// Draws the number of digits of a number.
int training_digits(eval::Rng& rng);

/// The templates of statements, questions and answers of a text; {k} key, {v} value. An answer is lead, value,
/// tail.
struct FactWording {
  std::string statement, question, lead, tail;
  std::string preface;             // a line that announces the questions; empty in half of the texts
  bool own_lines = false;          // each statement on a line of its own
  bool questions_on_lines = true;  // each question and answer on a line of its own
};
/// Draws a wording. several: question and answer are about several values or keys.
FactWording draw_fact_wording(eval::Rng& rng, bool several);
/// Returns the wording of facts whose key is the noun itself: "The door code is 4711."
FactWording draw_noun_wording(eval::Rng& rng);
/// Returns a modifier followed by a space, such as "old ", or an empty string.
std::string_view draw_modifier(eval::Rng& rng);
/// Returns a noun, such as "badge" or "door code".
std::string_view draw_noun(eval::Rng& rng);
/// The text before each question and each answer, such as "Q: " and "A: ".
struct Marks {
  std::string_view question, answer;
};
const Marks& draw_marks(eval::Rng& rng);
/// The separators of an enumeration: "a, b and c", "a; b; c".
struct Joining {
  std::string_view between, last;
};
Joining draw_joining(eval::Rng& rng);
std::string joined(const std::vector<std::string>& items, const Joining& joining);
std::string joined(const std::vector<std::string>& items, std::string_view between);

/// Appends the text before an answer, the answer and the text after it. The answer's span includes the next
/// character unless that is a space, which belongs to the next word.
void append_answer(std::string_view before, std::string_view answer, std::string_view after, MarkedText& marked);

/// The text around facts: book prose, repeated filler sentences, first one and then the other, or nothing.
class Surroundings {
 public:
  enum class Kind { kProse, kFiller, kBoth, kNone };
  Surroundings(eval::Rng& rng, const ProseSource& prose, Kind kind);
  /// Draws a kind other than kNone.
  Surroundings(eval::Rng& rng, const ProseSource& prose);

  /// Returns about `bytes` bytes of text.
  std::string text(eval::Rng& rng, int64_t bytes) const;
  /// Returns about `bytes` bytes: text with the pieces inserted at random positions between sentences, in their
  /// order, then `end`. own_lines: each piece on a line of its own.
  MarkedText insert(const std::vector<std::string>& pieces, const MarkedText& end, eval::Rng& rng, int64_t bytes,
                    bool own_lines) const;

 private:
  const ProseSource& prose_;
  Kind kind_;
  std::string filler_;  // filler sentences, which are repeated
};

/// Appends the text of `more` to `marked`, with the spans of its answers.
void append(const MarkedText& more, MarkedText& marked);

TaskSources fact_tasks();
TaskSources chain_tasks();
TaskSources list_tasks();
// Append the templates of these tasks.
void add_fact_templates(std::vector<std::string_view>& templates);
void add_surroundings_templates(std::vector<std::string_view>& templates);
void add_chain_templates(std::vector<std::string_view>& templates);
void add_list_templates(std::vector<std::string_view>& templates);

}  // namespace fathom::train
