// Tasks of recall and in-context learning, solved from the prompt alone.
#include <algorithm>
#include <map>
#include <set>

#include "eval/words.h"
#include "task_bench.h"
#include "text_match.h"

namespace fathom::eval {
namespace {

/// Returns the items of the context with their labels.
std::vector<std::pair<Strings, std::string>> demonstrations(const Sample& sample) {
  std::vector<std::pair<Strings, std::string>> found;
  for (const std::string& line : lines_of_text(sample.context)) {
    if (line.starts_with("item: ")) found.push_back({words_of(line.substr(6)), ""});
    if (line.starts_with("label: ")) found.back().second = line.substr(7);
  }
  return found;
}

/// Returns the label with the highest cosine similarity between its word counts and the query.
std::string nearest_label(const Sample& sample) {
  std::map<std::string, std::map<std::string, double>> centroids;
  std::map<std::string, double> counts;
  for (const auto& [words, label] : demonstrations(sample)) {
    ++counts[label];
    for (const std::string& word : words) ++centroids[label][word];
  }
  std::string best;
  double most = -1;
  for (auto& [label, centroid] : centroids) {
    double dot = 0, norm = 0;
    for (const auto& [word, count] : centroid) norm += count * count;
    for (const std::string& word : words_of(sample.question.substr(6))) dot += centroid[word];
    if (dot / std::sqrt(norm) > most) most = dot / std::sqrt(norm), best = label;
  }
  return best;
}

TEST(Classify, NearestCentroidIsAlwaysCorrect) {
  for (const char* spec : {"classify:classes=2", "classify:classes=12", "classify:classes=28,order=grouped"}) {
    const auto task = task_of(spec);
    for (int64_t index = 0; index < 30; ++index) {
      const Sample sample = task->make(bytes_input(), 3000, index);
      EXPECT_EQ(nearest_label(sample), sample.references[0]) << spec << " " << index;
    }
  }
}

TEST(Classify, RoundsShowEachClassEquallyOften) {
  for (const char* order : {"shuffled", "grouped"}) {
    const Sample sample = task_of(std::string("classify:classes=9,order=") + order)->make(bytes_input(), 3000, 0);
    std::map<std::string, int64_t> counts;
    int64_t changes = 0;
    std::string previous;
    for (const auto& [words, label] : demonstrations(sample)) {
      EXPECT_EQ(words.size(), 12u);
      ++counts[label];
      changes += label != previous;
      previous = label;
    }
    ASSERT_EQ(counts.size(), 9u);
    const auto [least, most] =
        std::ranges::minmax_element(counts, {}, [](const auto& count) { return count.second; });
    EXPECT_LE(most->second - least->second, 1);
    EXPECT_EQ(changes == 9, std::string(order) == "grouped") << changes;
  }
}

TEST(Classify, EvidenceIsTheClassAndDetailsContainItsLastPosition) {
  const Sample sample = task_of("classify:classes=6")->make(bytes_input(), 2000, 1);
  for (const TextSpan span : sample.evidence) {
    EXPECT_TRUE(text_at(sample, span).ends_with("\nlabel: " + sample.references[0]));
  }
  const double last =
      sample.details["last_demonstration"].get<double>() * static_cast<double>(sample.context.size());
  EXPECT_NEAR(last, static_cast<double>(sample.evidence.back().begin), 1);
  EXPECT_EQ(sample.context.find("label: " + sample.references[0], sample.evidence.back().end), std::string::npos);
}

TEST(Classify, LabelsAreListedIfRequested) {
  const auto with_labels = task_of("classify:classes=6,labels=true")->make(bytes_input(), 1000, 1);
  const auto plain = task_of("classify:classes=6")->make(bytes_input(), 1000, 1);
  const std::string before = "The labels are: ";
  EXPECT_EQ(plain.context.find(before), std::string::npos);
  ASSERT_NE(with_labels.context.find(before), std::string::npos);
  EXPECT_NE(with_labels.context.substr(0, with_labels.context.find("item:")).find(with_labels.references[0]),
            std::string::npos);
}

TEST(Classify, FirstLineIsScoredInAnyCase) {
  const auto task = task_of("classify");
  Sample sample;
  sample.references = {"zup"};
  EXPECT_EQ(value_of(*task, sample, " Zup \nitem: more"), 1);
  EXPECT_EQ(value_of(*task, sample, "zup or mek"), 0);
}

TEST(Classify, GuessingALabelScoresOneOverTheClasses) {
  const auto task = task_of("classify:classes=5");
  Rng rng(9, "guess", 0, 0);
  double correct = 0;
  for (int64_t index = 0; index < 400; ++index) {
    const Sample sample = task->make(bytes_input(), 500, index);
    correct += value_of(*task, sample, rng.pick(demonstrations(sample)).second);
  }
  expect_chance(correct, 400, 1.0 / 5);
}

TEST(WordRecall, ListsAndScoredWordsFollowTheCondition) {
  for (const std::string condition : {"repeat", "permute", "control"}) {
    const Sample sample = task_of("word_recall:words=5,condition=" + condition)->make(bytes_input(), 800, 2);
    const std::string first_line = lines_of_text(sample.context)[0], list = "The list: ";
    ASSERT_TRUE(first_line.starts_with(list) && first_line.ends_with("."));
    const std::string second_line = sample.lead.substr(std::string("Answer: ").size());
    ASSERT_TRUE(second_line.starts_with(list) && second_line.ends_with("."));
    Strings first = words_of(first_line.substr(10, first_line.size() - 11));
    Strings second = words_of(second_line.substr(10, second_line.size() - 11));
    Strings scored;
    for (const TextSpan span : sample.scored) scored.push_back(text_at(sample, span));
    Strings expected(first.begin() + 1, first.end());
    expected.insert(expected.end(), second.begin() + 1, second.end());
    EXPECT_EQ(scored, expected);
    EXPECT_EQ(first == second, condition == "repeat");
    std::ranges::sort(first);
    std::ranges::sort(second);
    EXPECT_EQ(first == second, condition != "control");
    Strings both;
    std::ranges::set_intersection(first, second, std::back_inserter(both));
    EXPECT_EQ(both.size(), condition == "control" ? 0u : 5u);
  }
}

TEST(WordRecall, GapContainsNoWordOfEitherList) {
  for (const char* condition : {"repeat", "control"}) {
    const Sample sample =
        task_of(std::string("word_recall:words=10,condition=") + condition)->make(bytes_input(), 20000, 0);
    std::string gap = sample.context.substr(sample.evidence.at(0).end);
    for (char& c : gap) c = std::isalpha(static_cast<unsigned char>(c)) ? c : ' ';
    const Strings words = words_of(gap);
    const std::set<std::string> gap_words(words.begin(), words.end());
    for (const TextSpan span : sample.scored) EXPECT_FALSE(gap_words.contains(text_at(sample, span)));
    int64_t names = 0;
    for (const std::string_view name : first_names()) names += gap_words.contains(std::string(name));
    EXPECT_GT(names, 80) << "other names occur in the gap";
  }
}

TEST(WordRecall, SurprisalRatioIsTheSecondListOverTheFirst) {
  const auto task = task_of("word_recall:words=3");
  const Sample sample = task->make(bytes_input(), 400, 0);
  const Answer answer{"", {{4, 1, false}, {6, 2, true}, {0.5, 1, true}, {1.5, 1, false}}};
  const Score score = task->score(sample, answer);
  EXPECT_DOUBLE_EQ(score.value, 0.5);
  EXPECT_DOUBLE_EQ(score.details["surprisal_ratio"].get<double>(), 20);
}

TEST(WordRecall, WrittenWordsAreScoredAtTheirPositions) {
  const auto task = task_of("word_recall:mode=generate,words=4");
  Sample sample;
  sample.references = {"Clara Simon Anna Hugh"};
  EXPECT_EQ(value_of(*task, sample, " Clara Simon Anna Hugh"), 1);
  EXPECT_DOUBLE_EQ(value_of(*task, sample, "Clara, Anna, Simon, Hugh."), 0.5);
  EXPECT_DOUBLE_EQ(value_of(*task, sample, "Clara"), 0.25);
  EXPECT_THROW(task_of("word_recall:mode=generate,condition=control"), Error);
}

TEST(Mqar, ScoredValuesAreThePartnersOfTheirKeys) {
  for (const char* spec : {"mqar", "mqar:pairs=20"}) {
    const Sample sample = task_of(spec)->make(bytes_input(), 2000, 0);
    std::map<std::string, std::string> partners;
    std::set<std::string> words;
    for (const TextSpan span : sample.evidence) {
      const std::string pair = text_at(sample, span);
      partners[pair.substr(0, pair.find(": "))] = pair.substr(pair.find(": ") + 2);
      words.insert(pair.substr(0, pair.find(": ")));
      words.insert(pair.substr(pair.find(": ") + 2));
    }
    EXPECT_EQ(words.size(), 2 * sample.evidence.size()) << "all words are different";
    const Strings queries = lines_of_text(sample.lead);
    ASSERT_EQ(queries.size(), sample.scored.size());
    ASSERT_EQ(partners.size(), sample.scored.size());
    EXPECT_EQ(sample.details["pairs"], sample.scored.size());
    for (size_t i = 0; i < queries.size(); ++i) {
      const std::string key = queries[i].substr(0, queries[i].find(": "));
      EXPECT_EQ(text_at(sample, sample.scored[i]), partners.at(key));
    }
    EXPECT_NE(queries[0], text_at(sample, sample.evidence[0]));
  }
}

TEST(Mqar, ScoreIsTheShareOfValues) {
  const auto task = task_of("mqar:pairs=4");
  const Sample sample = task->make(bytes_input(), 300, 0);
  Answer answer = correct_answer(sample);
  answer.spans[2].correct = false;
  EXPECT_DOUBLE_EQ(task->score(sample, answer).value, 0.75);
}

/// The strings of a sample (symbols only) and the offset of each symbol in the prompt.
struct LanguageStrings {
  Strings strings;
  std::vector<std::vector<size_t>> offsets;
};
LanguageStrings language_of(const Sample& sample) {
  LanguageStrings language;
  const std::string prompt = sample.prompt();
  size_t at = prompt.find('\n') + 1;
  for (const std::string& line : lines_of_text(prompt.substr(at))) {
    language.strings.emplace_back();
    language.offsets.emplace_back();
    for (size_t i = 0; i < line.size(); i += 2) {
      language.strings.back() += line[i];
      language.offsets.back().push_back(at + i);
    }
    at += line.size() + 1;
  }
  return language;
}

TEST(RegularLanguage, StringsAreValidAndScoredWhereOneChoiceRemains) {
  for (const char* spec : {"regular_language", "regular_language:states=3,symbols=2"}) {
    for (int64_t index = 0; index < 10; ++index) {
      const Sample sample = task_of(spec)->make(bytes_input(), 1500, index);
      const auto& automaton = sample.details["automaton"];
      std::set<size_t> scored;
      for (const TextSpan span : sample.scored) {
        scored.insert(span.begin);
        EXPECT_EQ(span.end, span.begin + 1);
      }
      const LanguageStrings language = language_of(sample);
      size_t found = 0;
      for (size_t i = 0; i < language.strings.size(); ++i) {
        int64_t state = 0;
        for (size_t j = 0; j < language.strings[i].size(); ++j) {
          const std::string symbol(1, language.strings[i][j]);
          ASSERT_TRUE(automaton[state].contains(symbol));
          if (scored.contains(language.offsets[i][j])) {
            ++found;
            EXPECT_EQ(automaton[state].size(), 1u);
          }
          state = automaton[state][symbol].get<int64_t>();
        }
      }
      EXPECT_EQ(found, sample.scored.size());
      EXPECT_GE(found, 5u);
    }
  }
}

/// Returns the most frequent continuation of the longest suffix of `prefix` that occurs in the earlier strings.
char predicted(const Strings& before, const std::string& prefix) {
  const std::string start = "^" + prefix;
  for (size_t from = 0; from <= start.size(); ++from) {
    const std::string ending = start.substr(from);
    std::map<char, int64_t> next;
    for (const std::string& string : before) {
      const std::string whole = "^" + string;
      for (size_t at = whole.find(ending); at != std::string::npos; at = whole.find(ending, at + 1)) {
        if (at + ending.size() < whole.size()) ++next[whole[at + ending.size()]];
      }
    }
    if (!next.empty())
      return std::ranges::max_element(next, {}, [](const auto& entry) { return entry.second; })->first;
  }
  return '?';
}

TEST(RegularLanguage, ScoredSymbolsCanBeLearnedFromEarlierStrings) {
  const auto task = task_of("regular_language");
  double correct = 0, all = 0;
  for (int64_t index = 0; index < 10; ++index) {
    const Sample sample = task->make(bytes_input(), 1500, index);
    const LanguageStrings language = language_of(sample);
    std::set<size_t> scored;
    for (const TextSpan span : sample.scored) scored.insert(span.begin);
    for (size_t i = 1; i < language.strings.size(); ++i) {
      const Strings before(language.strings.begin(), language.strings.begin() + i);
      for (size_t j = 0; j < language.strings[i].size(); ++j) {
        if (!scored.contains(language.offsets[i][j])) continue;
        correct += predicted(before, language.strings[i].substr(0, j)) == language.strings[i][j];
        ++all;
      }
    }
  }
  EXPECT_GT(correct / all, 0.97) << correct << " of " << all;
}

}  // namespace
}  // namespace fathom::eval
