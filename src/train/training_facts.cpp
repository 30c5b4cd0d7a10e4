// Tasks with facts: questions ask for one fact of many ("facts", "multi_key") or for several at once
// ("multi_value", "multi_query").
#include <algorithm>

#include "base/error.h"
#include "train/training_parts.h"

namespace fathom::train {
namespace {

constexpr int64_t kQuestionRoom = 200;  // bytes of text for each question, about 60 tokens
constexpr int64_t kMaxQuestions = 12;

struct Fact {
  std::string key, value;
};

std::string stated(const FactWording& wording, const Fact& fact) {
  return filled(wording.statement, {{'k', fact.key}, {'v', fact.value}});
}

void ask(const FactWording& wording, std::string_view keys, std::string_view values, MarkedText& marked) {
  append_answer(filled(concat(wording.question, wording.lead), {{'k', keys}}), values,
                filled(concat(wording.tail, wording.questions_on_lines ? "\n" : " "), {{'k', keys}}), marked);
}

/// Returns the preface, the statements inserted in the surroundings, and `end`.
MarkedText finished(const FactWording& wording, const std::vector<std::string>& statements, MarkedText end,
                    const Surroundings& around, eval::Rng& rng, int64_t bytes) {
  if (end.text.back() == ' ') end.text.back() = '\n';
  const std::string preface = std::ssize(wording.preface) * 8 < bytes ? wording.preface : "";
  MarkedText marked{preface, {}};
  append(around.insert(statements, end, rng, bytes - std::ssize(preface), wording.own_lines), marked);
  return marked;
}

/// Facts hidden in other text, or facts only. Questions ask for some of them, one at a time.
class FactSource final : public TaskSource {
 public:
  FactSource(std::string_view name, bool hidden) : TaskSource(name), hidden_(hidden) {}

  MarkedText make(eval::Rng rng, const ProseSource& prose, int64_t bytes) const override {
    const bool bare = hidden_ && rng.below(4) == 0, hex = !hidden_ && rng.below(2) == 0;
    FactWording wording = bare ? draw_noun_wording(rng) : draw_fact_wording(rng, false);
    wording.own_lines |= !hidden_;
    const Surroundings around = !hidden_                    ? Surroundings(rng, prose, Surroundings::Kind::kNone)
                                : bare && rng.below(2) == 0 ? Surroundings(rng, prose, Surroundings::Kind::kFiller)
                                                            : Surroundings(rng, prose);
    const int64_t max_questions = std::clamp<int64_t>(bytes / kQuestionRoom, 1, kMaxQuestions);
    const int64_t requested = rng.between((max_questions + 1) / 2, max_questions);
    const int64_t others = rng.between(0, std::clamp<int64_t>(bytes / 400, 0, 40));
    FactKeys keys = bare ? FactKeys::nouns(rng, prose)
                         : FactKeys(rng, prose, bytes, hidden_ ? requested + others : bytes / 40, hex);
    FactValues fact_values(rng, prose, bytes, hex);
    std::vector<Fact> facts;
    std::vector<std::string> statements;
    int64_t size = 0;
    const auto add = [&] {
      facts.push_back({keys.next(), fact_values.next()});
      statements.push_back(stated(wording, facts.back()));
      size += std::ssize(statements.back()) + 1;
    };
    add();
    MarkedText question;
    ask(wording, facts[0].key, facts[0].value, question);
    const auto question_bytes = std::ssize(question.text);  // other questions have about the same length
    const int64_t questions = std::clamp<int64_t>(bytes * 3 / 4 / (size + question_bytes), 1, requested);
    const int64_t room = bytes - questions * question_bytes, line = size;
    const auto needs_more = [&] {
      if (std::ssize(facts) < questions) return true;
      return size + line / 2 < room && (!hidden_ || std::ssize(facts) < questions + others);
    };
    while (needs_more()) add();
    MarkedText end;
    for (const int64_t i : rng.distinct(std::ssize(facts), questions))
      ask(wording, facts[i].key, facts[i].value, end);
    return finished(wording, statements, std::move(end), around, rng, bytes);
  }

 private:
  bool hidden_;
};

/// Keys with several values, where a question asks for all values of a key; or questions that ask for several
/// keys at once. A third of the texts have facts only: as many groups as fit, with a question for each. A third
/// have a single group, of at least three facts in long texts.
class FactGroups final : public TaskSource {
 public:
  FactGroups(std::string_view name, bool values) : TaskSource(name), values_(values) {}

  MarkedText make(eval::Rng rng, const ProseSource& prose, int64_t bytes) const override {
    constexpr int64_t kRoom = 700, kMaxTimes = 5,
                      kLong = 1500;  // kRoom: bytes per question; kLong: minimum bytes for three facts
    const FactWording wording = draw_fact_wording(rng, true);
    const int64_t drawn = rng.below(6);
    const bool crowded = drawn < 2, alone = drawn >= 4;
    const Surroundings around =
        crowded ? Surroundings(rng, prose, Surroundings::Kind::kNone) : Surroundings(rng, prose);
    const int64_t times = alone ? 1 : rng.between(1, std::clamp<int64_t>(bytes / kRoom, 1, kMaxTimes));
    const int64_t others = alone ? 0 : rng.between(0, std::clamp<int64_t>(bytes / 500, 0, 20));
    FactKeys keys(rng, prose, bytes, crowded ? bytes / 40 : times * 5 + others);
    FactValues fact_values(rng, prose, bytes);
    const Joining joining = draw_joining(rng);
    std::vector<std::vector<Fact>> groups;  // facts that one question asks for
    std::vector<Fact> facts;
    int64_t size = 0;  // bytes of the statements and questions so far
    const auto add_group = [&] {
      groups.push_back(draw_group(rng, keys, fact_values, bytes, alone && bytes > kLong ? 3 : 2));
      facts.insert(facts.end(), groups.back().begin(), groups.back().end());
      for (const Fact& fact : groups.back()) size += std::ssize(stated(wording, fact)) + 1;
      MarkedText question;
      ask_group(joining, wording, groups.back(), groups.back(), question);
      size += std::ssize(question.text);
    };
    add_group();
    const auto needs_more = [&] {
      const auto count = std::ssize(groups);
      return crowded ? size + size / (2 * count) < bytes : count < times;
    };
    while (needs_more()) add_group();
    for (int64_t i = crowded ? others : 0; i < others; ++i) facts.push_back({keys.next(), fact_values.next()});
    rng.shuffle(facts);
    std::vector<std::string> statements;
    for (const Fact& fact : facts) statements.push_back(stated(wording, fact));
    MarkedText end;
    for (const std::vector<Fact>& group : groups) ask_group(joining, wording, facts, group, end);
    return finished(wording, statements, std::move(end), around, rng, bytes);
  }

 private:
  std::vector<Fact> draw_group(eval::Rng& rng, FactKeys& keys, FactValues& fact_values, int64_t bytes,
                               int64_t min_facts) const {
    constexpr int64_t kRoom = 260, kMaxFacts = 5;  // kRoom: bytes per fact with its part of question and answer
    const int64_t max_facts = std::clamp<int64_t>(bytes / kRoom, 2, kMaxFacts);
    const int64_t count = rng.between(std::min(min_facts, max_facts), max_facts);
    std::vector<Fact> group;
    for (int64_t i = 0; i < count; ++i)
      group.push_back({values_ && i > 0 ? group[0].key : keys.next(), fact_values.next()});
    return group;
  }

  /// Appends the question for a group. The values of a key are in the order of the text, those of several keys in
  /// the order of the question.
  void ask_group(const Joining& joining, const FactWording& wording, const std::vector<Fact>& facts,
                 const std::vector<Fact>& group, MarkedText& end) const {
    std::vector<std::string> keys, values;
    for (const Fact& fact : values_ ? facts : group) {
      if (values_ && fact.key != group[0].key) continue;
      values.push_back(fact.value);
      keys.push_back(fact.key);
    }
    if (values_) keys.resize(1);
    ask(wording, joined(keys, joining), joined(values, joining), end);
  }

  bool values_;
};

}  // namespace

TaskSources fact_tasks() {
  return {std::make_shared<FactSource>("facts", true), std::make_shared<FactSource>("multi_key", false),
          std::make_shared<FactGroups>("multi_value", true), std::make_shared<FactGroups>("multi_query", false)};
}

}  // namespace fathom::train
