// Tasks whose text repeats something: lists, sequences, pairs, passages.
#include <algorithm>

#include "base/error.h"
#include "eval/haystack.h"
#include "eval/metrics.h"
#include "eval/words.h"
#include "train/training_parts.h"
#include "train/training_words.h"

namespace fathom::train {
namespace {

// Templates of lists: {o} label of one of several lists ("first ", "red "), {n} noun for the list, {v} items.
constexpr std::string_view kLists[] = {"here is the {o}{n}: {v}",
                                       "this is the {o}{n}: {v}",
                                       "now comes the {o}{n}, {v}",
                                       "the {o}{n} = {v}",
                                       "the {o}{n} reads {v}",
                                       "the whole {o}{n}: {v}",
                                       "{o}{n}: {v}",
                                       "[{o}{n}] {v}",
                                       "they read the {o}{n} aloud: {v}",
                                       "on the wall the {o}{n} said {v}",
                                       "our {o}{n} goes {v}",
                                       "learn this {o}{n}: {v}",
                                       "the {o}{n} runs as follows: {v}",
                                       "{o}{n} > {v}"};
constexpr std::string_view kListsAgain[] = {"once more, the {o}{n}: {v}", "the {o}{n} was: {v}",
                                            "again the {o}{n}: {v}",      "the same {o}{n}: {v}",
                                            "so the {o}{n} went: {v}",    "that {o}{n}, word for word: {v}",
                                            "I remember the {o}{n}: {v}", "{o}{n}, said again: {v}"};
constexpr std::string_view kListQuestions[] = {"say the {o}{n} again.",      "how did the {o}{n} go?",
                                               "the {o}{n}, please.",        "what did the {o}{n} hold?",
                                               "recite the {o}{n}.",         "do you still know the {o}{n}?",
                                               "write the {o}{n} once more."};
constexpr std::string_view kListNames[] = {"list", "list",  "list",  "row",   "series", "roll",
                                           "line", "chain", "order", "rhyme", "litany", "verse"};
constexpr std::string_view kOrdinals[] = {"first ", "second ", "third ", "fourth "};

// Parts of a ledger: the first line (kLatest, kLedgerHeads), the text between key and value (kSigns), before and
// after each pair (kBefores, kAfters), and before the second part (kSecondParts).
constexpr std::string_view kLatest[] = {"The latest entry counts.", "What comes later replaces what came before.",
                                        "Only the last word on each name holds.", "Later lines win."};
constexpr std::string_view kLedgerHeads[] = {"", "", "", "Entries:", "Pairs to learn:", "Ledger", "Who has what:"};
constexpr std::string_view kSigns[] = {" ", ": ",  " = ",  " -> ", " - ",   "=",
                                       ":", " | ", " is ", "\t",   " has ", ", "};
constexpr std::string_view kBefores[] = {"", "", "", "", "* ", "- ", "the "};
constexpr std::string_view kAfters[] = {"\n", "\n", "\n", ".\n", "; ", ", ", " / "};
constexpr std::string_view kSecondParts[] = {
    "Once more:", "Again:", "Now from memory:", "Shuffled:", "The same, mixed up:", "=====", "And back:"};

/// Items of a list, all of one kind: words, names, numbers, nonsense, or words of books in lower case or
/// capitalised.
class ListItems {
 public:
  ListItems(eval::Rng& rng, const ProseSource& prose)
      : rng_(rng),
        kind_(rng.below(10)),
        size_(static_cast<int>(rng.between(2, 4))),
        words_(passage_words(rng, prose)) {
    constexpr size_t kFewWords = 30;
    if (words_.size() < kFewWords && kind_ >= 5 && kind_ <= 7) kind_ = 0;
  }
  /// Returns an item that was not drawn before, if one is found in a few attempts.
  std::string next() {
    constexpr int kTries = 6;
    std::string item = draw();
    for (int tries = 1; tries < kTries && used_.contains(item); ++tries) item = draw();
    used_.insert(item);
    return item;
  }

 private:
  std::string draw() {
    switch (kind_) {
      case 0:
        return std::string(rng_.pick(training_nouns()));
      case 1:
        return std::string(rng_.pick(training_adjectives()));
      case 2:
        return eval::random_letters(rng_, size_, 'a');
      case 3:
        return eval::random_number(rng_, size_);
      case 4:
        return eval::nonsense_word(rng_, 1 + size_ % 3);
      case 5:
        return rng_.pick(words_);
      case 6:
      case 7:
        return capital(rng_.pick(words_));
      default:
        return std::string(rng_.pick(training_names()));
    }
  }

  eval::Rng& rng_;
  int64_t kind_;
  int size_;
  std::vector<std::string> words_;
  std::set<std::string> used_;
};

/// Lists in prose, each repeated after it. Half of the texts have a single list; two thirds of these begin with it.
class ListSource final : public TaskSource {
 public:
  ListSource() : TaskSource("lists") {}

  MarkedText make(eval::Rng rng, const ProseSource& prose, int64_t bytes) const override {
    constexpr int64_t kRoom = 1500, kMaxLists = 4;  // kRoom: bytes per list
    constexpr std::string_view kJoins[] = {" ", " ", " ", ", ", ", ", " / ", "; "};
    const Surroundings around(rng, prose);
    const std::string_view called = rng.pick(kListNames), between = rng.pick(kJoins), form = rng.pick(kLists),
                           end_mark = rng.below(2) == 0 ? "." : ";";
    const std::string_view again = rng.below(10) < 6 ? form : rng.pick(kListsAgain);
    const std::string question = draw_question(rng);
    const bool alone = rng.below(2) == 0, first = alone && rng.below(3) != 0;
    const int64_t count =
        alone ? 1 : rng.between(1, std::clamp<int64_t>(bytes / kRoom, bytes > 700 ? 2 : 1, kMaxLists));
    const int64_t max_items = std::clamp<int64_t>(bytes / (40 * count), 3, 24);
    const std::vector<std::string> labels = draw_labels(rng, count);
    std::vector<std::string> statements, lists;
    for (const std::string& label : labels) {
      ListItems items(rng, prose);
      std::vector<std::string> list;
      for (int64_t i = rng.between(3, max_items); i > 0; --i) list.push_back(items.next());
      lists.push_back(joined(list, between));
      statements.push_back(
          capital(filled(form, {{'o', label}, {'n', called}, {'v', lists.back()}})).append(end_mark));
    }
    MarkedText end;
    for (const int64_t i : rng.distinct(count, count)) {
      const std::string repeated = capital(filled(again, {{'o', labels[i]}, {'n', called}}));
      append_answer(filled(question, {{'o', labels[i]}, {'n', called}}) + repeated.substr(0, repeated.find("{v}")),
                    lists[i], concat(end_mark, "\n"), end);
    }
    const bool own_lines = rng.below(2) == 0;
    if (!first) return around.insert(statements, end, rng, bytes, own_lines);
    MarkedText marked{concat(statements[0], own_lines ? "\n" : " "), {}};
    append(around.insert({}, end, rng, bytes - std::ssize(marked.text), own_lines), marked);
    return marked;
  }

 private:
  static std::string draw_question(eval::Rng& rng) {
    if (rng.below(3) == 0) return "";
    const Marks& marks = draw_marks(rng);
    return concat(marks.question, capital(std::string(rng.pick(kListQuestions))), "\n", marks.answer);
  }
  static std::vector<std::string> draw_labels(eval::Rng& rng, int64_t count) {
    std::vector<std::string> labels;
    const bool ordinals = rng.below(2) == 0, none = count == 1 && rng.below(2) == 0;
    for (const int64_t i : rng.distinct(std::ssize(training_adjectives()), count)) {
      const std::string label =
          ordinals ? std::string(kOrdinals[labels.size()]) : concat(training_adjectives()[i], " ");
      labels.push_back(none ? "" : label);
    }
    return labels;
  }
};

/// A random sequence that is the whole text, two or three times. Answers are the repetitions after their first
/// items.
class CopySource final : public TaskSource {
 public:
  CopySource() : TaskSource("copy") {}

  MarkedText make(eval::Rng rng, const ProseSource& prose, int64_t bytes) const override {
    constexpr size_t kGiven = 3;  // items of a repetition before its answer
    const int64_t times = rng.between(2, 3);
    const std::string_view between = rng.below(5) == 0 ? ", " : " ";
    const std::vector<std::string> sequence = draw_sequence(rng, prose, bytes / times, kGiven, std::ssize(between));
    const std::string given = joined({sequence.begin(), sequence.begin() + kGiven}, between) + std::string(between);
    const std::string rest = joined({sequence.begin() + kGiven, sequence.end()}, between);
    MarkedText marked{concat(given, rest, "\n"), {}};
    for (int64_t i = 1; i < times; ++i) append_answer(given, rest, "\n", marked);
    return marked;
  }

 private:
  static std::vector<std::string> draw_sequence(eval::Rng& rng, const ProseSource& prose, int64_t bytes,
                                                size_t given, int64_t gap) {
    constexpr int64_t kChanged = 6;  // in sentences, one of this many words is replaced
    const bool sentences = gap == 1 && rng.below(3) == 0;
    ListItems items(rng, prose);
    std::vector<std::string> sequence;
    int64_t length = 0;
    const auto add = [&](std::string item) {
      length += std::ssize(item) + gap;
      sequence.push_back(std::move(item));
    };
    if (sentences) {
      const std::string text = prose(rng, bytes);
      for (const std::string_view word : eval::split_words(text))
        if (length < bytes) add(std::string(rng.below(kChanged) == 0 ? rng.pick(training_nouns()) : word));
    }
    while (length < bytes * 4 / 5 || (!sentences && length < bytes) || sequence.size() <= given) add(items.next());
    return sequence;
  }
};

/// Pairs of key and value, then keys again, each followed by its value.
class LedgerSource final : public TaskSource {
 public:
  LedgerSource() : TaskSource("ledger") {}

  MarkedText make(eval::Rng rng, const ProseSource& prose, int64_t bytes) const override {
    const Style style{rng.pick(kBefores), rng.pick(kSigns), rng.pick(kAfters)};
    const bool in_parts = rng.below(3) != 0, changing = in_parts && rng.below(2) == 0;
    const int64_t max_pairs = std::max<int64_t>(bytes / 60, 3);
    const int64_t count = rng.between(std::min<int64_t>(max_pairs, rng.between(2, 12)), max_pairs);
    FactKeys keys(rng, prose, bytes, count);
    FactValues fact_values(rng, prose, bytes);
    MarkedText marked;
    const std::string_view head = changing ? rng.pick(kLatest) : rng.pick(kLedgerHeads);
    if (!head.empty() && (changing || bytes > 500)) marked.text = concat(head, "\n");
    if (in_parts) {
      in_two_parts(style, count, changing, bytes, keys, fact_values, rng, marked);
    } else {
      mixed(style, count, bytes, keys, fact_values, rng, marked);
    }
    while (marked.text.back() == ' ' || marked.text.back() == '/') marked.text.pop_back();
    if (marked.text.back() != '\n') marked.text += '\n';
    return marked;
  }

 private:
  struct Style {
    std::string_view before, sign, after;
  };
  using Pairs = std::vector<std::pair<std::string, std::string>>;

  static void state(const Style& style, const std::string& key, const std::string& value, MarkedText& marked) {
    marked.text += concat(style.before, key, style.sign, value, style.after);
  }
  static void ask(const Style& style, const std::string& key, const std::string& value, MarkedText& marked) {
    append_answer(concat(style.before, key, style.sign), value, style.after, marked);
  }

  /// Appends all pairs, if `changing` also new values of earlier keys, then the keys in random order with their
  /// values, again and again until the text has `bytes` bytes.
  static void in_two_parts(const Style& style, int64_t count, bool changing, int64_t bytes, FactKeys& keys,
                           FactValues& fact_values, eval::Rng& rng, MarkedText& marked) {
    Pairs pairs;
    while (std::ssize(pairs) < count && (pairs.size() < 2 || std::ssize(marked.text) * 2 < bytes)) {
      if (changing && !pairs.empty() && rng.below(4) == 0) {
        auto& [key, value] = pairs[rng.below(std::ssize(pairs))];
        value = fact_values.next();
        state(style, key, value, marked);
        continue;
      }
      pairs.emplace_back(keys.next(), fact_values.next());
      state(style, pairs.back().first, pairs.back().second, marked);
    }
    if (marked.text.back() != '\n') marked.text += '\n';
    marked.text += concat(rng.pick(kSecondParts), "\n");
    const auto pair_bytes = (std::ssize(marked.text) / std::ssize(pairs)) / 2;
    do {
      rng.shuffle(pairs);
      for (const auto& [key, value] : pairs) {
        if (!marked.answers.empty() && std::ssize(marked.text) + pair_bytes > bytes) return;
        ask(style, key, value, marked);
      }
    } while (std::ssize(marked.text) < bytes);
  }

  /// Appends new pairs and questions about earlier ones, mixed evenly over the text.
  static void mixed(const Style& style, int64_t count, int64_t bytes, FactKeys& keys, FactValues& fact_values,
                    eval::Rng& rng, MarkedText& marked) {
    Pairs pairs;
    while (marked.answers.empty() || std::ssize(marked.text) < bytes) {
      const double due =
          static_cast<double>(count) * (static_cast<double>(std::ssize(marked.text)) / static_cast<double>(bytes));
      const bool late = std::ssize(marked.text) >= bytes;
      if (pairs.empty() || (!late && static_cast<double>(pairs.size()) < due + 2 && rng.below(3) == 0)) {
        pairs.emplace_back(keys.next(), fact_values.next());
        state(style, pairs.back().first, pairs.back().second, marked);
      } else {
        const auto& [key, value] = pairs[rng.below(std::ssize(pairs))];
        ask(style, key, value, marked);
      }
    }
  }
};

/// Passages of prose within other prose. At the end the first words of each passage are repeated, and the rest of
/// the passage is the answer.
class ContinueSource final : public TaskSource {
 public:
  ContinueSource() : TaskSource("continue") {}

  MarkedText make(eval::Rng rng, const ProseSource& prose, int64_t bytes) const override {
    constexpr int64_t kRoom = 1500, kMaxPassages = 5, kWordBytes = 6;
    constexpr size_t kGiven = 5;  // words that identify the passage
    const Surroundings around(rng, prose, Surroundings::Kind::kProse);
    const int64_t count = rng.between(1, std::clamp<int64_t>(bytes / kRoom, 1, kMaxPassages));
    std::vector<std::string> passages;
    MarkedText end;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t words =
          std::min(rng.between(30, 120), std::max<int64_t>(bytes / (kWordBytes * 5 / 2 * count), kGiven + 4));
      passages.push_back(passage(rng, prose, words));
    }
    for (const int64_t i : rng.distinct(count, count)) {
      const size_t given = eval::word_ends(passages[i])[kGiven - 1] + 1;
      append_answer(passages[i].substr(0, given), passages[i].substr(given), "\n", end);
    }
    return around.insert(passages, end, rng, bytes, true);
  }

 private:
  /// Returns `words` words in one line; nonsense words if the books have too few.
  static std::string passage(eval::Rng& rng, const ProseSource& prose, int64_t words) {
    constexpr int64_t kMaxWordBytes = 9;
    std::vector<std::string> taken;
    const std::string text = prose(rng, words * kMaxWordBytes);
    for (const std::string_view word : eval::split_words(text))
      if (std::ssize(taken) < words) taken.emplace_back(word);
    while (std::ssize(taken) < words)
      taken.push_back(eval::nonsense_word(rng, static_cast<int>(rng.between(1, 3))));
    return joined(taken, " ");
  }
};

}  // namespace

TaskSources list_tasks() {
  return {std::make_shared<ListSource>(), std::make_shared<CopySource>(), std::make_shared<LedgerSource>(),
          std::make_shared<ContinueSource>()};
}

void add_list_templates(std::vector<std::string_view>& templates) {
  const auto add = [&](const auto& forms) {
    templates.insert(templates.end(), std::begin(forms), std::end(forms));
  };
  add(kLists), add(kListsAgain), add(kListQuestions), add(kListNames), add(kOrdinals), add(kLatest);
  add(kLedgerHeads), add(kSigns), add(kSecondParts);
}

}  // namespace fathom::train
