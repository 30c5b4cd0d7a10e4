// RULER's word counts (RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024): the most
// common words of a list, and the most frequent words of a coded text.
#include <algorithm>
#include <cmath>
#include <set>

#include "base/format.h"
#include "eval/tasks/hiding.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

constexpr const char* kPaper = "RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024";

/// Distinct words in random order: common English ones, then generated ones.
class WordStream {
 public:
  explicit WordStream(Rng& rng) : rng_(rng), words_(common_words()) { rng_.shuffle(words_); }
  std::string next() {
    if (next_ < words_.size()) return std::string(words_[next_++]);
    for (;;) {
      std::string word = nonsense_word(rng_, 3);
      if (generated_.insert(word).second) return word;
    }
  }

 private:
  Rng& rng_;
  WordList words_;
  size_t next_ = 0;
  std::set<std::string> generated_;
};

/// How often words occur in the list and in its worked example, and the number of different words of the example.
struct CommonCounts {
  int64_t frequent, rare, example_words, example_frequent, example_rare;
};
constexpr int64_t kCommon = 10;  // number of words that occur often
constexpr CommonCounts kLong{30, 3, 40, 10, 3}, kShort{6, 1, 20, 3, 1};
constexpr int64_t kLongFrom = 4096;  // tokens; kLong is used from this length on

class CommonWords final : public Task {
 public:
  CommonWords() : Task("cwe") {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    const CommonCounts& counts = length < kLongFrom ? kShort : kLong;
    Rng rng = this->rng(input, length, index);
    WordStream stream(rng);
    const List example = draw(stream, counts.example_words);
    const std::string shown = numbered(example, counts.example_frequent, counts.example_rare, Rng(rng));
    // a list entry has at least three tokens, so no more different words are needed
    const List list = draw(stream, kCommon + length / (3 * counts.rare));
    const Rng order = rng;
    return fit_sample(*this, input, length, 0, static_cast<int64_t>(list.rare.size()), [&](int64_t words) {
      List shortened = list;
      shortened.rare.resize(words);
      return build(example, shown, shortened, numbered(shortened, counts.frequent, counts.rare, order));
    });
  }

  Score score(const Sample& sample, const Answer& answer) const override { return recall_score(sample, answer); }

 private:
  struct List {
    std::vector<std::string> frequent, rare;
  };
  static List draw(WordStream& stream, int64_t words) {
    List list;
    for (int64_t i = 0; i < words; ++i) (i < kCommon ? list.frequent : list.rare).push_back(stream.next());
    return list;
  }

  static std::string numbered(const List& list, int64_t frequent, int64_t rare, Rng rng) {
    std::vector<const std::string*> words;
    for (const std::string& word : list.frequent) words.insert(words.end(), frequent, &word);
    for (const std::string& word : list.rare) words.insert(words.end(), rare, &word);
    rng.shuffle(words);
    std::string text;
    for (size_t i = 0; i < words.size(); ++i) {
      if (i > 0) text += ' ';
      text += std::to_string(i + 1) + ". " + *words[i];
    }
    return text + "\n";
  }

  static std::string answer_of(const List& list) {
    std::string text;
    for (size_t i = 0; i < list.frequent.size(); ++i)
      text += (i > 0 ? " " : "") + std::to_string(i + 1) + ". " + list.frequent[i];
    return text;
  }

  static Sample build(const List& example, const std::string& shown, const List& list, const std::string& text) {
    static constexpr const char* kStatement =
        "Below is a numbered list of words. Some of them stand in it often. Remember the ten most common ones.\n";
    static constexpr const char* kQuestion = "Question: Which ten words stand most often in the list above?\n";
    static constexpr const char* kLead = "Answer: The ten most common words of the list are:";
    Sample sample;
    sample.context = concat(kStatement, shown, kQuestion, kLead, " ", answer_of(example), "\n\n", kStatement);
    sample.evidence = {{sample.context.size(), sample.context.size() + text.size()}};  // the whole list
    sample.context += text;
    sample.question = kQuestion;
    sample.lead = kLead;
    sample.references = list.frequent;
    sample.reserve = 120;
    sample.stop = {"\n\n", "\nQuestion:"};
    return sample;
  }
};

class FrequentWords final : public Task {
 public:
  explicit FrequentWords(double alpha) : Task("fwe"), alpha_(alpha) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    const std::vector<std::string> words = draw(rng, std::max<int64_t>(kRanks, (length - kWordReserve) / 50));
    const Rng order = rng;
    return fit_sample(*this, input, length, min_words(), 2 * length, [&](int64_t total) {
      Rng own = order;
      return build(words, coded(words, total, own));
    });
  }

  Score score(const Sample& sample, const Answer& answer) const override { return recall_score(sample, answer); }

 private:
  static constexpr int64_t kWordReserve = 50;
  static constexpr int64_t kRanks = 5;  // words whose counts must differ: the ignored one to the fifth

  /// Returns the smallest number of words at which the counts differ: the fourth word occurs at least once more
  /// often than the fifth.
  int64_t min_words() const {
    const double difference = std::pow(kRanks - 1, -alpha_) - std::pow(kRanks, -alpha_);
    return static_cast<int64_t>(std::ceil(zeta() / difference));
  }

  static std::vector<std::string> draw(Rng& rng, int64_t count) {
    std::vector<std::string> words;
    std::set<std::string> used;
    while (static_cast<int64_t>(words.size()) < count) {
      std::string word = random_letters(rng, 6, 'a');
      if (used.insert(word).second) words.push_back(std::move(word));
    }
    return words;
  }

  /// Returns Riemann's zeta of alpha: its first terms plus the integral over the others.
  double zeta() const {
    constexpr int kTerms = 10000;
    double sum = 0;
    for (int k = kTerms; k >= 1; --k) sum += std::pow(k, -alpha_);
    return sum + std::pow(kTerms + 0.5, 1 - alpha_) / (alpha_ - 1);
  }

  /// Returns `total` words whose frequencies follow Zipf's law, shuffled; the most frequent one is written as dots.
  std::string coded(const std::vector<std::string>& words, int64_t total, Rng& rng) const {
    const double scale = static_cast<double>(total) / zeta();
    std::vector<const std::string*> text;
    static const std::string kDots = "...";
    for (size_t rank = 1; rank <= words.size(); ++rank) {
      const auto count = static_cast<size_t>(scale * std::pow(static_cast<double>(rank), -alpha_));
      text.insert(text.end(), count, rank == 1 ? &kDots : &words[rank - 1]);
    }
    rng.shuffle(text);
    std::string joined;
    for (const std::string* word : text) joined += (joined.empty() ? "" : " ") + *word;
    return joined + "\n";
  }

  static Sample build(const std::vector<std::string>& words, const std::string& text) {
    Sample sample;
    sample.context =
        "Below is a text in coded words. Find the three most frequent ones; the dots do not count.\n\n";
    sample.evidence = {{sample.context.size(), sample.context.size() + text.size()}};
    sample.context += text;
    sample.question = "\nQuestion: What are the three most frequent words of the coded text, the dots aside?\n";
    sample.lead = "Answer: The three most frequent words of the coded text are:";
    sample.references = {words[1], words[2], words[3]};
    sample.reserve = kWordReserve;
    sample.stop = {"\n\n", "\nQuestion:"};
    return sample;
  }

  double alpha_;
};

}  // namespace

MethodInfo ruler_common_words_info() {
  return {"", "cwe", "name the ten most common words of a long numbered list", kPaper, false, "any model", "",
          "", {}};
}
TaskList make_ruler_common_words(const Values&) { return {std::make_shared<CommonWords>()}; }

MethodInfo ruler_frequent_words_info() {
  return {"",
          "fwe",
          "name the three most frequent words of a coded text whose word frequencies follow Zipf's law",
          kPaper,
          false,
          "any model",
          "",
          "",
          {{"alpha", Parameter::Type::kFloat, "2", "exponent of Zipf's law; less is harder", 1.1, 4, {}}}};
}
TaskList make_ruler_frequent_words(const Values& values) {
  return {std::make_shared<FrequentWords>(values.number("alpha"))};
}

}  // namespace fathom::eval
