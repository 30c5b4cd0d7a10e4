#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "eval/haystack.h"
#include "eval/task.h"
#include "eval/words.h"
#include "train/training_tasks.h"
#include "train/training_words.h"

namespace fathom::test {
namespace {

std::string blank_prose(Dice&, int64_t) { return ""; }
std::string dull_prose(Dice&, int64_t bytes) {
  std::string text;
  while (std::ssize(text) + 10 < bytes) text += "Zzzzz zzz. ";
  return text;
}

std::string at(const MarkedText& marked, TextSpan span) {
  return marked.text.substr(span.begin, span.end - span.begin);
}

TEST(TrainingWords, NoneIsAWordOfEvaluation) {
  std::set<std::string_view> evaluated;
  for (const auto& list : {adjectives(), nouns(), first_names(), towns(), common_words()})
    evaluated.insert(list.begin(), list.end());
  for (const auto* list : {&training_nouns(), &training_adjectives(), &training_names()}) {
    EXPECT_GE(list->size(), 80u);
    EXPECT_TRUE(std::ranges::is_sorted(*list));
    EXPECT_EQ(std::ranges::adjacent_find(*list), list->end());
    for (const std::string_view word : *list) EXPECT_FALSE(evaluated.contains(word)) << word;
  }
}

class ZzzHaystack final : public Haystack {
 public:
  const std::string& name() const override { return name_; }
  std::string text(Dice&, int64_t words) const override {
    std::string text = "Zzzzz";
    for (int64_t i = 1; i < words; ++i) text += i % 8 ? " zzz" : ". Zzzzz";
    return text;
  }

 private:
  std::string name_ = "zzz";
};

/// All runs of three words, in small letters; what is in braces, and marks, end a run.
std::set<std::string> runs_of(std::string text) {
  for (size_t open = text.find('{'); open != std::string::npos; open = text.find('{')) text.replace(open, 3, " | ");
  std::string spaced;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c))) {
      spaced += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else {
      spaced += c == ' ' ? " " : " | ";
    }
  }
  std::set<std::string> runs;
  std::istringstream words(spaced);
  std::string first, second, third;
  while (words >> third) {
    if (third == "|") {
      first = second = "";
      continue;
    }
    if (!first.empty()) runs.insert(first + " " + second + " " + third);
    first = std::exchange(second, third);
  }
  return runs;
}

TEST(TrainingTasks, WordingsAreNotThoseOfEvaluation) {
  const ZzzHaystack haystack;
  TaskInput input;
  input.count = [](std::string_view text) { return static_cast<int64_t>(text.size() + 3) / 4; };
  input.measure = [&](const Sample& sample) { return input.count(sample.prompt()); };
  input.haystack = &haystack;
  std::set<std::string> evaluated;
  for (const char* spec : {"ruler", "needle", "passkey", "lines", "kv_threads", "mqar", "classify", "text_sort",
                           "best_answer", "reorder", "path_traversal", "word_recall"}) {
    for (const auto& task : task_methods().make(spec)) {
      std::string prompt = task->make(input, 8192, 0).prompt();
      std::ranges::replace(prompt, '{', ' ');
      const std::set<std::string> runs = runs_of(prompt);
      EXPECT_FALSE(runs.empty()) << task->name();
      evaluated.insert(runs.begin(), runs.end());
    }
  }
  int64_t runs = 0;
  for (const std::string_view form : training_templates()) {
    for (const std::string& run : runs_of(std::string(form))) {
      EXPECT_FALSE(evaluated.contains(run)) << run << " of " << form;
      ++runs;
    }
  }
  EXPECT_GE(runs, 20);
}

TEST(TrainingTasks, NumbersAreNoLongerOrShorterThanPromised) {
  for (const auto& task : training_tasks()) {
    for (int64_t i = 0; i < 30; ++i) {
      const std::string text = task->make(Dice(1, "numbers", 0, i), blank_prose, 2000).text;
      for (size_t begin = 0, end; begin < text.size(); begin = end + 1) {
        end = std::min(text.find_first_not_of("0123456789", begin), text.size());
        EXPECT_TRUE((std::set<size_t>{0, 3, 4, 8}.contains(end - begin))) << text.substr(begin, end - begin);
      }
    }
  }
}

/// The parts of an answer, between commas, without the mark that ends it.
std::vector<std::string> items_of(std::string answer) {
  answer.pop_back();
  std::vector<std::string> items;
  for (size_t begin = 0; begin <= answer.size();) {
    const size_t end = std::min(answer.find(", ", begin), answer.size());
    items.push_back(answer.substr(begin, end - begin));
    begin = end + 2;
  }
  return items;
}

TEST(TrainingTasks, EachAnswerIsToBeFoundInTheTextBeforeIt) {
  for (const auto& task : training_tasks()) {
    for (int64_t i = 0; i < 60; ++i) {
      SCOPED_TRACE(task->name() + " " + std::to_string(i));
      const MarkedText marked = task->make(Dice(1, "answers", 0, i), dull_prose, 400 + 100 * i);
      ASSERT_FALSE(marked.answers.empty());
      const std::string before = marked.text.substr(0, marked.answers[0].begin);
      size_t previous = 0;
      for (const TextSpan answer : marked.answers) {
        ASSERT_GE(answer.begin, previous);
        ASSERT_LT(answer.begin, answer.end);
        ASSERT_LE(answer.end, marked.text.size());
        previous = answer.end;
        for (const std::string& item : items_of(at(marked, answer)))
          EXPECT_NE(before.find(item), std::string::npos) << item << "\n" << marked.text;
      }
    }
  }
}

TEST(TrainingTasks, LengthIsAboutWhatIsAskedFor) {
  for (const auto& task : training_tasks()) {
    for (const int64_t bytes : {1000, 4000, 60000}) {
      const auto size = static_cast<double>(task->make(Dice(1, "length", 0, bytes), dull_prose, bytes).text.size());
      EXPECT_NEAR(size / static_cast<double>(bytes), 1, 0.25) << task->name() << " " << bytes;
    }
  }
}

TEST(TrainingTasks, SameDiceGiveTheSameText) {
  for (const auto& task : training_tasks()) {
    const auto text = [&](int64_t i) { return task->make(Dice(1, "same", 0, i), dull_prose, 3000).text; };
    EXPECT_EQ(text(1), text(1));
    EXPECT_NE(text(1), text(2));
  }
}

}  // namespace
}  // namespace fathom::test
