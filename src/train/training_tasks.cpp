#include "train/training_tasks.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "eval/haystack.h"
#include "train/training_words.h"

namespace fathom {
namespace {

/// How a fact is stated, and asked for. {k} key, {t} what the value is, {v} value.
struct FactForm {
  std::string_view statement, question;
};
constexpr FactForm kFacts[] = {
    {"Note that {k} keeps {v} for its {t}.", "Q: Which {t} does {k} keep?\nA: {v}\n"},
    {"{k} was given the {t} {v}.", "Say which {t} was given to {k}. It was {v}.\n"},
    {"Under {k} one finds {v} as {t}.", "Look up the {t} under {k}: {v}\n"},
    {"The {t} belonging to {k} reads {v}.", "{k} has a {t}, which reads {v}.\n"},
    {"[{k}] {t} = {v}", "[{k}] {t} = {v}\n"},
    {"Keep in mind: {t} for {k}, {v}.", "Asked about the {t} for {k}, one should reply {v}.\n"},
};
constexpr FactForm kManyValues[] = {
    {"Note that {k} keeps {v} for its {t}.", "Q: Name each {t} that {k} keeps.\nA: {v}\n"},
    {"{k} was given the {t} {v}.", "Every {t} given to {k}, one after another: {v}\n"},
};
constexpr FactForm kManyKeys[] = {
    {"The {t} belonging to {k} reads {v}.", "Q: In this order, which {t} belongs to {k}?\nA: {v}\n"},
    {"Under {k} one finds {v} as {t}.", "Look up, each under its name, the {t} of {k}: {v}\n"},
};
constexpr FactForm kChains[] = {
    {"Let {k} stand for {v}.", "All that stand for {k}: {v}\n"},
    {"Write {k} wherever {v} is meant.", "Q: What may be written for {k}?\nA: {v}\n"},
};
constexpr FactForm kLists[] = {
    {"Here comes a row of words: {v}.", "The row of words, once again: {v}.\n"},
    {"They called out {v}.", "Q: What did they call out?\nA: {v}.\n"},
};
constexpr std::string_view kThings[] = {"badge",      "berth", "cipher",     "docket", "emblem",     "ledger mark",
                                        "locker",     "motto", "parcel tag", "quota",  "seal",       "serial mark",
                                        "shelf mark", "stall", "tally",      "ticket", "token word", "watchword"};

std::string filled(std::string_view form, std::string_view key, std::string_view thing, std::string_view value) {
  std::string text;
  for (size_t at = 0; at < form.size();) {
    if (form[at] == '{') {
      text += form[at + 1] == 'k' ? key : form[at + 1] == 't' ? thing : value;
      at += 3;
    } else {
      text += form[at++];
    }
  }
  return text;
}

/// Appends the question; its value, with the character that ends it, is marked.
void ask(std::string_view question, std::string_view key, std::string_view thing, std::string_view value,
         MarkedText& marked) {
  const size_t mark = question.find("{v}");
  marked.text += filled(question.substr(0, mark), key, thing, "");
  marked.answers.push_back({marked.text.size(), marked.text.size() + value.size() + 1});
  marked.text += concat(value, question.substr(mark + 3));
}

/// Things that are all different: names, words, numbers.
class Fresh {
 public:
  explicit Fresh(Dice& dice) : dice_(dice) {}

  std::string key() {
    return unused([&](int tries) -> std::string {
      const std::string pair = concat(dice_.pick(training_adjectives()), " ", dice_.pick(training_nouns()));
      if (tries > 20) return concat("the ", dice_.pick(training_adjectives()), " ", pair);
      return dice_.below(2) == 0 ? std::string(dice_.pick(training_names())) : concat("the ", pair);
    });
  }
  std::string value() {
    return unused([&](int tries) -> std::string {
      if (tries < 5 && dice_.below(3) == 0) return std::string(dice_.pick(training_nouns()));
      return number(tries);
    });
  }
  std::string number(int tries = 0) {
    constexpr int kDigits[] = {3, 4, 8};
    return random_number(dice_, tries > 20 ? 8 : dice_.pick(kDigits));
  }
  std::string variable() {
    return unused([&](int) { return random_letters(dice_, 4, 'a'); });
  }

 private:
  template <class Draw>
  std::string unused(const Draw& draw) {
    for (int tries = 0;; ++tries) {
      std::string drawn = draw(tries);
      if (used_.insert(drawn).second) return drawn;
    }
  }
  Dice& dice_;
  std::set<std::string> used_;
};

/// Prose with the sentences at random places between its own, in their order, on lines of their own or not; then
/// `end`. About `bytes` bytes.
MarkedText hidden(const std::vector<std::string>& sentences, const MarkedText& end, const ProseSource& prose,
                  Dice& dice, int64_t bytes) {
  int64_t taken = std::ssize(end.text);
  for (const std::string& sentence : sentences) taken += std::ssize(sentence) + 1;
  const std::string text = bytes > taken ? prose(dice, bytes - taken) : "";
  const std::vector<std::string_view> parts = split_sentences(text);
  std::vector<int64_t> places;
  for (size_t i = 0; i < sentences.size(); ++i) places.push_back(dice.between(0, std::ssize(parts)));
  std::ranges::sort(places);
  const bool own_lines = dice.below(2) == 0;
  MarkedText marked;
  size_t next = 0;
  for (size_t part = 0; part <= parts.size(); ++part) {
    for (; next < sentences.size() && places[next] == static_cast<int64_t>(part); ++next) {
      const bool at_line = marked.text.empty() || marked.text.back() == '\n';
      if (own_lines && !at_line) marked.text += '\n';
      if (!own_lines && !at_line && marked.text.back() != ' ') marked.text += ' ';
      marked.text += sentences[next] + (own_lines ? '\n' : ' ');
    }
    if (part < parts.size()) marked.text += parts[part];
  }
  while (!marked.text.empty() && (marked.text.back() == ' ' || marked.text.back() == '\n')) marked.text.pop_back();
  if (!marked.text.empty()) marked.text += '\n';
  for (const TextSpan& answer : end.answers)
    marked.answers.push_back({marked.text.size() + answer.begin, marked.text.size() + answer.end});
  marked.text += end.text;
  return marked;
}

std::string joined(const std::vector<std::string>& items, std::string_view between) {
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) text += concat(i == 0 ? "" : between, items[i]);
  return text;
}

struct Fact {
  std::string key, value;
};

/// Facts in prose, or nothing but facts; some are asked for, one after the other.
class Facts final : public TaskSource {
 public:
  Facts(std::string_view name, bool in_prose) : TaskSource(name), in_prose_(in_prose) {}

  MarkedText make(Dice dice, const ProseSource& prose, int64_t bytes) const override {
    constexpr int64_t kQuestionBytes = 50, kMostQuestions = 8;
    Fresh fresh(dice);
    const FactForm& form = dice.pick(kFacts);
    const std::string_view thing = dice.pick(kThings);
    const int64_t questions = dice.between(1, std::clamp<int64_t>(bytes / 250, 1, kMostQuestions));
    const int64_t count = dice.between(questions, std::clamp<int64_t>(bytes / 400, questions, 24));
    std::vector<Fact> facts;
    std::vector<std::string> sentences;
    const auto enough = [&](int64_t size) {
      const auto made = std::ssize(facts);
      return in_prose_ ? made == count : made >= questions && size + kQuestionBytes * questions >= bytes;
    };
    for (int64_t size = 0; !enough(size); size += std::ssize(sentences.back()) + 1) {
      facts.push_back({fresh.key(), fresh.value()});
      sentences.push_back(filled(form.statement, facts.back().key, thing, facts.back().value));
    }
    MarkedText end;
    for (const int64_t i : dice.distinct(std::ssize(facts), questions))
      ask(form.question, facts[i].key, thing, facts[i].value, end);
    return hidden(sentences, end, in_prose_ ? prose : ProseSource([](Dice&, int64_t) { return ""; }), dice, bytes);
  }

 private:
  bool in_prose_;
};

/// Keys with several values, all values of one key asked for; or several keys asked for at once.
class Several final : public TaskSource {
 public:
  Several(std::string_view name, bool values) : TaskSource(name), values_(values) {}

  MarkedText make(Dice dice, const ProseSource& prose, int64_t bytes) const override {
    Fresh fresh(dice);
    const FactForm& form = values_ ? dice.pick(kManyValues) : dice.pick(kManyKeys);
    const std::string_view thing = dice.pick(kThings);
    const int64_t asked = dice.between(2, 4), others = dice.between(0, std::clamp<int64_t>(bytes / 500, 0, 6));
    std::vector<Fact> facts;
    for (int64_t i = 0; i < asked + others; ++i)
      facts.push_back({values_ && i > 0 && i < asked ? facts[0].key : fresh.key(), fresh.value()});
    std::vector<Fact> order = facts;
    dice.shuffle(order);
    std::vector<std::string> sentences, keys, values;
    for (const Fact& fact : order) {
      sentences.push_back(filled(form.statement, fact.key, thing, fact.value));
      if (values_ && fact.key == facts[0].key) values.push_back(fact.value);
    }
    for (int64_t i = 0; i < asked && !values_; ++i) {
      keys.push_back(facts[i].key);
      values.push_back(facts[i].value);
    }
    MarkedText end;
    ask(form.question, values_ ? facts[0].key : joined(keys, ", "), thing, joined(values, ", "), end);
    return hidden(sentences, end, prose, dice, bytes);
  }

 private:
  bool values_;
};

/// Names that stand for a number, or for one another; all that come to one number are asked for.
class Chains final : public TaskSource {
 public:
  Chains() : TaskSource("chains") {}

  MarkedText make(Dice dice, const ProseSource& prose, int64_t bytes) const override {
    Fresh fresh(dice);
    const FactForm& form = dice.pick(kChains);
    const int64_t chains = dice.between(1, bytes < 1500 ? 1 : 3), most = bytes < 800 ? 2 : 4;
    std::vector<std::vector<std::string>> names(chains);
    std::vector<std::string> numbers, sentences;
    std::vector<size_t> turns;
    for (int64_t chain = 0; chain < chains; ++chain) {
      numbers.push_back(random_number(dice, 8));
      turns.insert(turns.end(), dice.between(1, most), chain);
    }
    dice.shuffle(turns);
    for (const size_t chain : turns) {
      const std::string name = fresh.variable();
      sentences.push_back(
          filled(form.statement, name, "", names[chain].empty() ? numbers[chain] : names[chain].back()));
      names[chain].push_back(name);
    }
    MarkedText end;
    ask(form.question, numbers[0], "", joined(names[0], ", "), end);
    return hidden(sentences, end, prose, dice, bytes);
  }
};

/// A row of words, said again behind prose.
class Lists final : public TaskSource {
 public:
  Lists() : TaskSource("lists") {}

  MarkedText make(Dice dice, const ProseSource& prose, int64_t bytes) const override {
    const FactForm& form = dice.pick(kLists);
    const WordList& words = dice.below(2) == 0 ? training_nouns() : training_names();
    std::vector<std::string> row;
    for (const int64_t i :
         dice.distinct(std::ssize(words), dice.between(3, std::clamp<int64_t>(bytes / 60, 4, 24))))
      row.emplace_back(words[i]);
    const std::string said = joined(row, dice.below(2) == 0 ? " " : ", ");
    MarkedText end;
    ask(form.question, "", "", said, end);
    return hidden({filled(form.statement, "", "", said)}, end, prose, dice, bytes);
  }
};

/// A random sequence that comes twice: all of the text, the second time after its first items.
class Copy final : public TaskSource {
 public:
  Copy() : TaskSource("copy") {}

  MarkedText make(Dice dice, const ProseSource&, int64_t bytes) const override {
    constexpr size_t kGiven = 3;  // items that tell that the sequence comes again
    const bool letters = dice.below(2) == 0;
    std::vector<std::string> given, rest;
    for (int64_t length = 0; length < bytes / 2 || rest.empty();) {
      std::string item = letters ? random_letters(dice, static_cast<int>(dice.between(1, 4)), 'a')
                                 : std::string(dice.pick(training_nouns()));
      length += std::ssize(item) + 1;
      (given.size() < kGiven ? given : rest).push_back(std::move(item));
    }
    const std::string first = joined(given, " ") + " ", second = joined(rest, " ") + "\n";
    MarkedText marked{concat(first, second, first), {}};
    marked.answers = {{marked.text.size(), marked.text.size() + second.size()}};
    marked.text += second;
    return marked;
  }
};

}  // namespace

TaskSources training_tasks() {
  return {std::make_shared<Facts>("facts", true),
          std::make_shared<Facts>("multi_key", false),
          std::make_shared<Several>("multi_value", true),
          std::make_shared<Several>("multi_query", false),
          std::make_shared<Chains>(),
          std::make_shared<Lists>(),
          std::make_shared<Copy>()};
}

std::vector<std::string_view> training_templates() {
  std::vector<std::string_view> templates;
  const auto add = [&](const auto& forms) {
    for (const FactForm& form : forms) {
      templates.push_back(form.statement);
      templates.push_back(form.question);
    }
  };
  add(kFacts), add(kManyValues), add(kManyKeys), add(kChains), add(kLists);
  return templates;
}

}  // namespace fathom
