#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "eval/haystack.h"
#include "eval/task.h"
#include "eval/words.h"
#include "train/training_parts.h"
#include "train/training_tasks.h"
#include "train/training_words.h"

namespace fathom::train {
namespace {

std::string blank_prose(eval::Rng&, int64_t) { return ""; }
std::string filler_prose(eval::Rng&, int64_t bytes) {
  std::string text;
  while (std::ssize(text) + 10 < bytes) text += "Zzzzz zzz. ";
  return text;
}

std::string at(const MarkedText& marked, eval::TextSpan span) {
  return marked.text.substr(span.begin, span.end - span.begin);
}

TEST(TrainingWords, ShareNoWordWithEvaluation) {
  std::set<std::string_view> evaluated;
  for (const auto& list :
       {eval::adjectives(), eval::nouns(), eval::first_names(), eval::towns(), eval::common_words()})
    evaluated.insert(list.begin(), list.end());
  for (const auto* list : {&training_nouns(), &training_adjectives(), &training_names()}) {
    EXPECT_GE(list->size(), 80u);
    EXPECT_TRUE(std::ranges::is_sorted(*list));
    EXPECT_EQ(std::ranges::adjacent_find(*list), list->end());
    for (const std::string_view word : *list) EXPECT_FALSE(evaluated.contains(word)) << word;
  }
}

class ZzzHaystack final : public eval::Haystack {
 public:
  const std::string& name() const override { return name_; }
  std::string text(eval::Rng&, int64_t words) const override {
    std::string text = "Zzzzz";
    for (int64_t i = 1; i < words; ++i) text += i % 8 ? " zzz" : ". Zzzzz";
    return text;
  }

 private:
  std::string name_ = "zzz";
};

/// Returns all sequences of three words in lower case. Placeholders and punctuation end a sequence.
std::set<std::string> trigrams_of(std::string text) {
  for (size_t open = text.find('{'); open != std::string::npos; open = text.find('{')) text.replace(open, 3, " | ");
  std::string spaced;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c))) {
      spaced += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else {
      spaced += c == ' ' ? " " : " | ";
    }
  }
  std::set<std::string> trigrams;
  std::istringstream words(spaced);
  std::string first, second, third;
  while (words >> third) {
    if (third == "|") {
      first = second = "";
      continue;
    }
    if (!first.empty()) trigrams.insert(first + " " + second + " " + third);
    first = std::exchange(second, third);
  }
  return trigrams;
}

TEST(TrainingTasks, WordingsShareNoThreeWordsWithEvaluation) {
  const ZzzHaystack haystack;
  eval::TaskInput input;
  input.count = [](std::string_view text) { return static_cast<int64_t>(text.size() + 3) / 4; };
  input.measure = [&](const eval::Sample& sample) { return input.count(sample.prompt()); };
  input.haystack = &haystack;
  std::set<std::string> evaluated;
  for (const char* spec : {"ruler", "needle", "passkey", "lines", "kv_threads", "mqar", "classify", "text_sort",
                           "best_answer", "reorder", "path_traversal", "word_recall"}) {
    for (const auto& task : eval::task_methods().make(spec)) {
      std::string prompt = task->make(input, 8192, 0).prompt();
      std::ranges::replace(prompt, '{', ' ');
      const std::set<std::string> trigrams = trigrams_of(prompt);
      EXPECT_FALSE(trigrams.empty()) << task->name();
      evaluated.insert(trigrams.begin(), trigrams.end());
    }
  }
  int64_t trigrams = 0;
  const auto expect_new = [&](const std::string& text) {
    for (const std::string& trigram : trigrams_of(text)) {
      EXPECT_FALSE(evaluated.contains(trigram)) << trigram << " of " << text;
      ++trigrams;
    }
  };
  for (const std::string_view form : training_templates()) expect_new(std::string(form));
  EXPECT_GE(trigrams, 100);
  for (const auto& task : training_tasks())
    for (int64_t i = 0; i < 400; ++i)
      expect_new(task->make(eval::Rng(1, "wordings", 0, i), blank_prose, 1500).text);
}

TEST(TrainingTasks, NumbersHaveTheDocumentedDigits) {
  for (const auto& task : training_tasks()) {
    for (int64_t i = 0; i < 200; ++i) {
      const std::string text = task->make(eval::Rng(1, "numbers", 0, i), blank_prose, 2000).text;
      for (size_t begin = 0, end; begin < text.size(); begin = end + 1) {
        end = std::min(text.find_first_not_of("0123456789", begin), text.size());
        EXPECT_TRUE((std::set<size_t>{0, 1, 2, 3, 4, 8, 9}.contains(end - begin)))
            << text.substr(begin, end - begin);
      }
    }
  }
}

/// Returns the words of an answer without punctuation and "and".
std::vector<std::string> items_of(const std::string& answer) {
  std::istringstream words(answer);
  std::vector<std::string> items;
  for (std::string word; words >> word;) {
    while (!word.empty() && std::string_view(".,;!/|+").find(word.back()) != std::string_view::npos)
      word.pop_back();
    if (!word.empty() && word != "and") items.push_back(word);
  }
  return items;
}

/// Whether all questions of the task follow all facts.
bool has_questions_at_end(const std::string& task) { return task == "facts" || task.starts_with("multi"); }

TEST(TrainingTasks, EveryAnswerOccursInTheTextBeforeIt) {
  for (const auto& task : training_tasks()) {
    for (int64_t i = 0; i < 100; ++i) {
      SCOPED_TRACE(task->name() + " " + std::to_string(i));
      const MarkedText marked = task->make(eval::Rng(1, "answers", 0, i), filler_prose, 400 + 100 * i);
      ASSERT_FALSE(marked.answers.empty());
      size_t previous = 0;
      for (const eval::TextSpan answer : marked.answers) {
        ASSERT_GE(answer.begin, previous);
        ASSERT_LT(answer.begin, answer.end);
        ASSERT_LE(answer.end, marked.text.size());
        previous = answer.end;
        const std::string before =
            marked.text.substr(0, has_questions_at_end(task->name()) ? marked.answers[0].begin : answer.begin);
        for (const std::string& item : items_of(at(marked, answer)))
          ASSERT_NE(before.find(item), std::string::npos) << item << "\n" << marked.text;
      }
    }
  }
}

/// Finds the last earlier occurrence of the longest text before the answer that occurs earlier, of at least `least`
/// bytes. Returns whether the answer follows it there.
bool leads_to_answer(const MarkedText& marked, eval::TextSpan answer, size_t least) {
  const std::string_view text = marked.text;
  const std::string_view value = text.substr(answer.begin, answer.end - answer.begin - 1);
  for (size_t length = std::min<size_t>(answer.begin, 80); length >= least; --length) {
    const size_t found = text.rfind(text.substr(answer.begin - length, length), answer.begin - length - 1);
    if (found != std::string_view::npos && found < answer.begin - length)
      return text.substr(found + length).starts_with(value);
  }
  return false;
}

TEST(TrainingTasks, WordsBeforeTheAnswerLeadToItMostly) {
  for (const auto& task : training_tasks()) {
    if (task->name() != "facts" && task->name() != "multi_key" && task->name() != "ledger") continue;
    int64_t right = 0, all = 0;
    for (int64_t i = 0; i < 100; ++i) {
      const MarkedText marked = task->make(eval::Rng(1, "leads", 0, i), filler_prose, 1500);
      for (const eval::TextSpan answer : marked.answers) {
        right += leads_to_answer(marked, answer, 4);
        ++all;
      }
    }
    EXPECT_GE(all, 400) << task->name();
    EXPECT_GE(right * 100, all * 55) << task->name() << " " << right << " of " << all;
  }
}

/// Returns the first position of `word` as a separate word; npos: none.
size_t find_word(const std::string& text, const std::string& word) {
  const auto in_word = [&](size_t i) {
    return i < text.size() && std::isalnum(static_cast<unsigned char>(text[i]));
  };
  size_t found = text.find(word);
  while (found != text.npos && ((found > 0 && in_word(found - 1)) || in_word(found + word.size())))
    found = text.find(word, found + 1);
  return found;
}

TEST(TrainingTasks, NamesOfAChainAreInTheOrderOfTheText) {
  for (const auto& task : training_tasks()) {
    if (task->name() != "chains") continue;
    int64_t chains = 0;
    for (int64_t i = 0; i < 300; ++i) {
      const MarkedText marked = task->make(eval::Rng(1, "chains", 0, i), blank_prose, 700);
      const std::vector<std::string> names = items_of(at(marked, marked.answers[0]));
      EXPECT_LE(names.size(), 4u);
      chains += names.size() == 2 || names.size() == 3;
      size_t previous = 0;
      for (const std::string& name : names) {
        const size_t found = find_word(marked.text, name);
        EXPECT_GE(found, previous) << name << "\n" << marked.text;
        previous = found;
      }
    }
    EXPECT_GE(chains, 150);
  }
}

TEST(TrainingTasks, StatementsHaveManyWordings) {
  std::set<std::string> statements, leads;
  for (int64_t i = 0; i < 500; ++i) {
    eval::Rng rng(1, "variety", 0, i);
    const FactWording wording = draw_fact_wording(rng, false);
    statements.insert(wording.statement);
    leads.insert(wording.lead);
  }
  EXPECT_GE(statements.size(), 350u);
  EXPECT_GE(leads.size(), 350u);
  for (const auto& task : training_tasks()) {
    std::set<std::string> openings;
    for (int64_t i = 0; i < 500; ++i)
      openings.insert(task->make(eval::Rng(1, "openings", 0, i), blank_prose, 1000).text.substr(0, 20));
    EXPECT_GE(openings.size(), 150u) << task->name();
  }
}

TEST(TrainingTasks, NoKeyIsPartOfAnother) {
  const auto haystack = eval::prose_haystack();
  const ProseSource prose = [&](eval::Rng& rng, int64_t bytes) { return haystack->text(rng, bytes / 5); };
  for (int64_t i = 0; i < 150; ++i) {
    eval::Rng rng(1, "keys", 0, i);
    FactKeys keys(rng, i % 3 == 0 ? blank_prose : prose, 3000, i % 2 == 0 ? 30 : 60);
    std::vector<std::string> drawn;
    for (int64_t k = 0; k < (i % 2 == 0 ? 30 : 60); ++k) {
      drawn.push_back(keys.next());
      for (size_t other = 0; other + 1 < drawn.size(); ++other) {
        EXPECT_EQ((" " + drawn.back() + " ").find(" " + drawn[other] + " "), std::string::npos);
        EXPECT_EQ((" " + drawn[other] + " ").find(" " + drawn.back() + " "), std::string::npos);
      }
    }
  }
}

TEST(TrainingTasks, LengthIsNearTheRequestedOne) {
  for (const auto& task : training_tasks()) {
    for (const int64_t bytes : {1000, 8000, 32000, 60000}) {
      for (int64_t i = 0; i < 20; ++i) {
        const auto size =
            static_cast<double>(task->make(eval::Rng(1, "length", i, bytes), filler_prose, bytes).text.size());
        EXPECT_NEAR(size / static_cast<double>(bytes), 1, 0.3) << task->name() << " " << bytes << " " << i;
      }
    }
  }
}

TEST(TrainingTasks, ShortestTextFitsIn400Bytes) {
  for (const auto& task : training_tasks())
    for (int64_t i = 0; i < 500; ++i)
      EXPECT_LE(task->make(eval::Rng(1, "short", 0, i), filler_prose, 150).text.size(), 400u)
          << task->name() << " " << i;
}

TEST(TrainingTasks, SameRngGivesTheSameText) {
  for (const auto& task : training_tasks()) {
    const auto text = [&](int64_t i) { return task->make(eval::Rng(1, "same", 0, i), filler_prose, 3000).text; };
    EXPECT_EQ(text(1), text(1));
    EXPECT_NE(text(1), text(2));
  }
}

}  // namespace
}  // namespace fathom::train
