// One fact of many asked for, or several at once.
#include <algorithm>

#include "base/error.h"
#include "train/training_parts.h"

namespace fathom::train {
namespace {

constexpr int64_t kQuestionRoom = 200;  // bytes of text for each question, about 60 tokens
constexpr int64_t kMostQuestions = 12;

struct Fact {
  std::string key, value;
};

std::string stated(const FactWording& wording, const Fact& fact) {
  return filled(wording.statement, {{'k', fact.key}, {'v', fact.value}});
}

void ask(const FactWording& wording, std::string_view keys, std::string_view values, MarkedText& marked) {
  append_answer(filled(concat(wording.question, wording.lead), {{'k', keys}}), values,
                filled(concat(wording.tail, wording.asks_in_lines ? "\n" : " "), {{'k', keys}}), marked);
}

/// The text in its surroundings behind the preface.
MarkedText finished(const FactWording& wording, const std::vector<std::string>& statements, MarkedText end,
                    const Surroundings& around, eval::Rng& rng, int64_t bytes) {
  if (end.text.back() == ' ') end.text.back() = '\n';
  const std::string preface = std::ssize(wording.preface) * 8 < bytes ? wording.preface : "";
  MarkedText marked{preface, {}};
  append(around.hide(statements, end, rng, bytes - std::ssize(preface), wording.own_lines), marked);
  return marked;
}

/// Facts hidden in something, or nothing but facts; some are asked for, one after the other.
class Facts final : public TaskSource {
 public:
  Facts(std::string_view name, bool hidden) : TaskSource(name), hidden_(hidden) {}

  MarkedText make(eval::Rng rng, const ProseSource& prose, int64_t bytes) const override {
    const bool bare = hidden_ && rng.below(4) == 0, hex = !hidden_ && rng.below(2) == 0;
    FactWording wording = bare ? draw_thing_wording(rng) : draw_fact_wording(rng, false);
    wording.own_lines |= !hidden_;
    const Surroundings around = !hidden_                     ? Surroundings(rng, prose, Surroundings::Kind::kNone)
                                : bare && rng.below(2) == 0 ? Surroundings(rng, prose, Surroundings::Kind::kDull)
                                                             : Surroundings(rng, prose);
    const int64_t most = std::clamp<int64_t>(bytes / kQuestionRoom, 1, kMostQuestions);
    const int64_t wanted = rng.between((most + 1) / 2, most);
    const int64_t others = rng.between(0, std::clamp<int64_t>(bytes / 400, 0, 40));
    Keys keys =
        bare ? Keys::things(rng, prose) : Keys(rng, prose, bytes, hidden_ ? wanted + others : bytes / 40, hex);
    Worths worths(rng, prose, bytes, hex);
    std::vector<Fact> facts;
    std::vector<std::string> statements;
    int64_t size = 0;
    const auto add = [&] {
      facts.push_back({keys.next(), worths.next()});
      statements.push_back(stated(wording, facts.back()));
      size += std::ssize(statements.back()) + 1;
    };
    add();
    MarkedText question;
    ask(wording, facts[0].key, facts[0].value, question);
    const auto asked_bytes = std::ssize(question.text);  // others are about as long
    const int64_t questions = std::clamp<int64_t>(bytes * 3 / 4 / (size + asked_bytes), 1, wanted);
    const int64_t room = bytes - questions * asked_bytes, line = size;
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

/// Keys with several values, all values of a key asked for; or several keys asked for at once. A third of the texts
/// are crowded: nothing but facts, as many groups as there is room for, all asked for; a third have one group
/// alone, of three facts at least where there is room.
class Several final : public TaskSource {
 public:
  Several(std::string_view name, bool values) : TaskSource(name), values_(values) {}

  MarkedText make(eval::Rng rng, const ProseSource& prose, int64_t bytes) const override {
    constexpr int64_t kRoom = 700, kMostTimes = 5, kLong = 1500;  // bytes: for each question, for three facts
    const FactWording wording = draw_fact_wording(rng, true);
    const int64_t drawn = rng.below(6);
    const bool crowded = drawn < 2, alone = drawn >= 4;
    const Surroundings around =
        crowded ? Surroundings(rng, prose, Surroundings::Kind::kNone) : Surroundings(rng, prose);
    const int64_t times = alone ? 1 : rng.between(1, std::clamp<int64_t>(bytes / kRoom, 1, kMostTimes));
    const int64_t others = alone ? 0 : rng.between(0, std::clamp<int64_t>(bytes / 500, 0, 20));
    Keys keys(rng, prose, bytes, crowded ? bytes / 40 : times * 5 + others);
    Worths worths(rng, prose, bytes);
    const Joining joining = draw_joining(rng);
    std::vector<std::vector<Fact>> groups;  // of the facts that are asked for at once
    std::vector<Fact> facts;
    int64_t size = 0;  // of the statements and questions so far
    const auto add_group = [&] {
      groups.push_back(draw_group(rng, keys, worths, bytes, alone && bytes > kLong ? 3 : 2));
      facts.insert(facts.end(), groups.back().begin(), groups.back().end());
      for (const Fact& fact : groups.back()) size += std::ssize(stated(wording, fact)) + 1;
      MarkedText asked;
      ask_group(joining, wording, groups.back(), groups.back(), asked);
      size += std::ssize(asked.text);
    };
    add_group();
    const auto needs_more = [&] {
      const auto count = std::ssize(groups);
      return crowded ? size + size / (2 * count) < bytes : count < times;
    };
    while (needs_more()) add_group();
    for (int64_t i = crowded ? others : 0; i < others; ++i) facts.push_back({keys.next(), worths.next()});
    rng.shuffle(facts);
    std::vector<std::string> statements;
    for (const Fact& fact : facts) statements.push_back(stated(wording, fact));
    MarkedText end;
    for (const std::vector<Fact>& group : groups) ask_group(joining, wording, facts, group, end);
    return finished(wording, statements, std::move(end), around, rng, bytes);
  }

 private:
  std::vector<Fact> draw_group(eval::Rng& rng, Keys& keys, Worths& worths, int64_t bytes, int64_t least) const {
    constexpr int64_t kRoom = 260, kMost = 5;  // bytes for each fact with its part of question and answer
    const int64_t most = std::clamp<int64_t>(bytes / kRoom, 2, kMost);
    const int64_t count = rng.between(std::min(least, most), most);
    std::vector<Fact> group;
    for (int64_t i = 0; i < count; ++i)
      group.push_back({values_ && i > 0 ? group[0].key : keys.next(), worths.next()});
    return group;
  }

  /// Values of a key in the order of the text, of keys in the order of the question.
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
  return {std::make_shared<Facts>("facts", true), std::make_shared<Facts>("multi_key", false),
          std::make_shared<Several>("multi_value", true), std::make_shared<Several>("multi_query", false)};
}

}  // namespace fathom::train
