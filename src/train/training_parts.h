#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "train/training_tasks.h"

// What the training tasks are made of: names and values, wordings, and what lies around them.
namespace fathom::train {

/// The words of 4 to 10 small letters of a passage, all different, none in evaluation's lists of nouns and
/// adjectives.
std::vector<std::string> passage_words(eval::Rng& rng, const ProseSource& prose);
/// Groups of hex digits, never five decimal ones in a row. In half of the texts some groups begin alike in all that
/// are drawn, as the third of a UUID does.
class HexGroups {
 public:
  HexGroups(eval::Rng& rng, std::vector<int> sizes);
  std::string draw(eval::Rng& rng, size_t place) const;
  size_t count() const { return sizes_.size(); }

 private:
  std::vector<int> sizes_;
  std::string heads_;  // of each group; a space where it is free
};
/// "[a] {t} [p] {k}": each {letter} replaced by what `parts` has for it, other braces kept.
struct Slot {
  char name;
  std::string_view text;
};
std::string filled(std::string_view form, std::initializer_list<Slot> parts);
/// The first letter made a capital, or a small one.
std::string capital(std::string text);

/// Names of things of one kind (person, adjective and noun, nonsense, letters with digits, hex groups, words of the
/// passage), all different and none a part of another. In some texts many differ from an earlier one in one part
/// only.
class Keys {
 public:
  /// bytes: of the text; count: of the keys that it may need; hex: hex groups, otherwise of any kind.
  Keys(eval::Rng& rng, const ProseSource& prose, int64_t bytes, int64_t count, bool hex = false);
  /// Things that facts are about ("old badge", "door code").
  static Keys things(eval::Rng& rng, const ProseSource& prose);
  std::string next();

 private:
  enum class Kind { kName, kWords, kNonsense, kCode, kHex, kPassage, kThing };
  std::string part(size_t place);
  void draw_kind(int64_t bytes, int64_t count, bool hex);

  eval::Rng& rng_;
  Kind kind_;
  bool alike_;              // many share a part with an earlier one
  std::vector<int> sizes_;  // of the parts: letters, digits, syllables
  std::optional<HexGroups> hex_;
  std::string before_, between_;
  bool capitals_ = false;
  std::vector<std::string> words_;
  std::vector<std::vector<std::string>> drawn_;
  std::set<std::string> used_;
};

/// What keys have: numbers of 2, 3, 4, 8 or 9 digits, hex, words, letters with digits; mostly of one kind in a
/// text. They differ as long as the kind has enough of them.
class Worths {
 public:
  /// hex: hex groups all of them.
  Worths(eval::Rng& rng, const ProseSource& prose, int64_t bytes, bool hex = false);
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

/// Digits of a number of a training task.
int training_digits(eval::Rng& rng);

/// How the facts of a text are stated and asked for; {k} key, {v} value. The answer is lead, value, tail.
struct FactWording {
  std::string statement, question, lead, tail;
  std::string preface;  // a line that says what is wanted; empty in half of the texts
  bool own_lines = false;
  bool asks_in_lines = true;  // each question and answer on lines of their own
};
/// several: question and answer are about several values, or keys, at once.
FactWording draw_fact_wording(eval::Rng& rng, bool several);
/// Of facts whose key is the thing itself: "The door code is 4711."
FactWording draw_thing_wording(eval::Rng& rng);
/// "old", "private", or nothing; "badge", "door code".
std::string_view draw_modifier(eval::Rng& rng);
std::string_view draw_thing(eval::Rng& rng);
/// The beginnings of question and answer: "Q: ", "A: ".
struct Marks {
  std::string_view question, answer;
};
const Marks& draw_marks(eval::Rng& rng);
/// How several things are named: "a, b and c", "a; b; c".
struct Joining {
  std::string_view between, last;
};
Joining draw_joining(eval::Rng& rng);
std::string joined(const std::vector<std::string>& items, const Joining& joining);
std::string joined(const std::vector<std::string>& items, std::string_view between);

/// Appends what comes before an answer, the answer, and what comes behind. Marks the answer with the character that
/// ends it, but for a space, which belongs to the next word.
void append_answer(std::string_view before, std::string_view answer, std::string_view behind, MarkedText& marked);

/// What lies around the facts of a text: book prose, dull sentences over and over, both in turn, or nothing.
class Surroundings {
 public:
  enum class Kind { kProse, kDull, kBoth, kNone };
  Surroundings(eval::Rng& rng, const ProseSource& prose, Kind kind);
  /// Any kind but kNone.
  Surroundings(eval::Rng& rng, const ProseSource& prose);

  std::string text(eval::Rng& rng, int64_t bytes) const;
  /// The pieces at random places between sentences, in their order, on lines of their own or not; then `end`.
  /// About `bytes` bytes.
  MarkedText hide(const std::vector<std::string>& pieces, const MarkedText& end, eval::Rng& rng, int64_t bytes,
                  bool own_lines) const;

 private:
  const ProseSource& prose_;
  Kind kind_;
  std::string round_;  // of dull sentences
};

/// Appends `more` with its answers.
void append(const MarkedText& more, MarkedText& marked);

TaskSources fact_tasks();
TaskSources chain_tasks();
TaskSources list_tasks();
// The pieces of their wordings.
void add_fact_templates(std::vector<std::string_view>& templates);
void add_place_templates(std::vector<std::string_view>& templates);
void add_chain_templates(std::vector<std::string_view>& templates);
void add_list_templates(std::vector<std::string_view>& templates);

}  // namespace fathom::train
