// The 13 tasks of RULER: structure, counts and answers follow the paper. The tests recover the answers from the
// text alone.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include "text_match.h"

#include "eval/haystack.h"
#include "eval/tasks/hiding.h"
#include "ruler_names.h"
#include "task_bench.h"

namespace fathom::eval {
namespace {

struct FoundNeedle {
  std::string key, value;
};

/// Returns all needles of a text.
std::vector<FoundNeedle> needles_of(const std::string& text) {
  static const std::regex pattern("A magic (number|uuid) for ([a-z0-9-]+) is ([0-9a-f-]+)\\.");
  std::vector<FoundNeedle> found;
  for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it)
    found.push_back({(*it)[2], (*it)[3]});
  return found;
}

class Ruler : public ::testing::TestWithParam<std::string> {
 protected:
  const std::shared_ptr<const Task> task_ = task_of(GetParam());
};

TEST_P(Ruler, FillsAtLeast95PercentOfTheLength) {
  for (const TaskInput& input : {seedling_input(), bytes_input()}) {
    for (const int64_t length : {1024, 2000, 4096, 16384}) {
      for (int64_t index = 0; index < 2; ++index) {
        const int64_t tokens = tokens_of(input, task_->make(input, length, index));
        EXPECT_LE(tokens, length);
        EXPECT_GE(tokens, length * 95 / 100) << length;
      }
    }
  }
}

TEST_P(Ruler, ReserveEqualsThePublishedOne) {
  static const std::map<std::string, int64_t> kOther = {
      {"vt", 30}, {"cwe", 120}, {"fwe", 50}, {"qa_1", 32}, {"qa_2", 32}};
  const auto other = kOther.find(GetParam());
  EXPECT_EQ(task_->make(bytes_input(), 2048, 0).reserve, other == kOther.end() ? 128 : other->second);
}

TEST_P(Ruler, SameSeedGivesTheSameBytesAndAnotherSeedOthers) {
  EXPECT_EQ(everything(task_->make(bytes_input(3), 2048, 5)), everything(task_->make(bytes_input(3), 2048, 5)));
  EXPECT_NE(everything(task_->make(bytes_input(3), 2048, 5)), everything(task_->make(bytes_input(4), 2048, 5)));
  EXPECT_NE(everything(task_->make(bytes_input(3), 2048, 5)), everything(task_->make(bytes_input(3), 2048, 6)));
}

TEST_P(Ruler, ReferencesScoreOneAnEmptyAnswerZeroAndPartsTheirShare) {
  const Sample sample = task_->make(bytes_input(), 2048, 0);
  EXPECT_EQ(value_of(*task_, sample, " " + joined(sample.references, " ")), 1);
  EXPECT_EQ(value_of(*task_, sample, ""), 0);
  const auto count = static_cast<double>(sample.references.size());
  if (count > 1) {
    EXPECT_DOUBLE_EQ(value_of(*task_, sample, sample.references[1]), 1 / count);
  }
}

TEST_P(Ruler, WorksWithTheLengthThatItsErrorNames) {
  const int64_t needed = needed_by(*task_, bytes_input());
  ASSERT_GT(needed, 1);
  Sample sample;
  int64_t enough = needed;  // the need was computed for a prompt of another length, whose example may be shorter
  for (; enough < 2 * needed + 600; ++enough) {
    try {
      sample = task_->make(bytes_input(), enough, 0);
      break;
    } catch (const Error&) {
    }
  }
  EXPECT_LE(tokens_of(bytes_input(), sample), enough);
  EXPECT_LE(enough, 2 * needed);
}

TEST_P(Ruler, EvidenceContainsTheAnswers) {
  const Sample sample = task_->make(seedling_input(), 4096, 1);
  std::string evidence;
  for (const TextSpan span : sample.evidence) evidence += text_at(sample, span) + "\n";
  for (const std::string& reference : sample.references) EXPECT_NE(evidence.find(reference), std::string::npos);
}

TEST_P(Ruler, FillsAHundredThousandTokens) {
  const Sample sample = task_->make(seedling_input(), 100000, 0);
  EXPECT_GE(tokens_of(seedling_input(), sample), 95000);
}

INSTANTIATE_TEST_SUITE_P(All, Ruler, ::testing::ValuesIn(kRulerNames), [](const auto& test) { return test.param; });

TEST(RulerSuite, HasTheThirteenTasksInOrder) {
  std::vector<std::string> names;
  for (const auto& task : task_methods().make("ruler")) names.push_back(task->name());
  EXPECT_EQ(names, kRulerNames);
}

struct NeedleRule {
  const char* name;
  size_t keys, values, queried;
  bool uuid_keys, uuid_values, only_needles;
};
class RulerNeedleTasks : public ::testing::TestWithParam<NeedleRule> {};

TEST_P(RulerNeedleTasks, HasTheNeedlesAndQueriesOfTheRule) {
  const NeedleRule& rule = GetParam();
  const auto task = task_of(rule.name);
  static const std::regex uuid("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"),
      number("[1-9][0-9]{6}"), word("[a-z]+-[a-z]+");
  for (int64_t index = 0; index < 5; ++index) {
    const Sample sample = task->make(seedling_input(), 3000, index);
    std::map<std::string, std::vector<std::string>> values;
    for (const auto& [key, value] : needles_of(sample.context)) {
      values[key].push_back(value);
      EXPECT_TRUE(std::regex_match(key, rule.uuid_keys ? uuid : word)) << key;
      EXPECT_TRUE(std::regex_match(value, rule.uuid_values ? uuid : number)) << value;
      EXPECT_EQ(occurrences(sample.prompt(), value), 1u);
    }
    if (!rule.only_needles) {
      EXPECT_EQ(values.size(), rule.keys);
    }
    std::vector<std::string> expected;  // values of the keys in the question, in its order
    std::map<size_t, std::string> queried;
    for (const auto& [key, all] : values) {
      EXPECT_EQ(all.size(), rule.values);
      std::smatch match;
      const std::regex whole("(for |, |and )" + key + "[?, ]");
      if (std::regex_search(sample.question, match, whole)) queried[match.position()] = key;
    }
    EXPECT_EQ(queried.size(), rule.queried);
    for (const auto& [at, key] : queried) expected.insert(expected.end(), values[key].begin(), values[key].end());
    std::vector<std::string> references = sample.references;
    if (rule.values > 1) std::ranges::sort(expected), std::ranges::sort(references);
    EXPECT_EQ(expected, references);
    EXPECT_EQ(sample.depth.has_value(), rule.values * rule.queried == 1);
    const bool one = rule.values * rule.queried == 1;
    EXPECT_EQ(sample.question.find("numbers") == std::string::npos, one || rule.uuid_values);
    EXPECT_EQ(sample.lead.ends_with(one ? " is" : " are"), true);
  }
}

INSTANTIATE_TEST_SUITE_P(All, RulerNeedleTasks,
                         ::testing::Values(NeedleRule{"niah_single_1", 1, 1, 1, false, false, false},
                                           NeedleRule{"niah_single_2", 1, 1, 1, false, false, false},
                                           NeedleRule{"niah_single_3", 1, 1, 1, false, true, false},
                                           NeedleRule{"niah_multikey_1", 4, 1, 1, false, false, false},
                                           NeedleRule{"niah_multikey_2", 0, 1, 1, false, false, true},
                                           NeedleRule{"niah_multikey_3", 0, 1, 1, true, true, true},
                                           NeedleRule{"niah_multivalue", 1, 4, 1, false, false, false},
                                           NeedleRule{"niah_multiquery", 4, 1, 4, false, false, false}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(RulerNeedleText, IsNoiseOrOnlyNeedles) {
  for (const auto& [name, filler] : {std::pair("niah_single_1", true), std::pair("niah_multikey_2", false),
                                     std::pair("niah_multikey_3", false)}) {
    const Sample sample = task_of(name)->make(seedling_input(), 3000, 0);
    const std::vector<std::string> lines = lines_of_text(sample.context);
    for (size_t i = 2; i < lines.size(); ++i) {  // after the statement and an empty line
      if (filler && lines[i] == kNoiseLine) continue;
      EXPECT_EQ(needles_of(lines[i]).size(), 1u) << lines[i];
    }
    EXPECT_EQ(needles_of(sample.context).size() > 1, !filler);
  }
}

TEST(RulerNeedleText, IsARunOfTheHaystackWithoutTheNeedles) {
  const TaskInput input = seedling_input();
  for (const char* name : {"niah_single_2", "niah_multivalue", "niah_multiquery"}) {
    const Sample sample = task_of(name)->make(input, 3000, 0);
    std::string text = sample.context.substr(sample.context.find("\n\n") + 2);
    text = std::regex_replace(text, std::regex(" ?A magic number for [a-z-]+ is [0-9]+\\."), "");
    Rng rng(input.seed, name, 3000, 0);
    const std::string haystack = input.haystack->text(rng, 3000);
    std::string words;
    for (const std::string& line : {text, haystack}) {
      std::string flat;
      std::istringstream stream(line);
      for (std::string word; stream >> word;) flat += word + " ";
      if (words.empty()) {
        words = flat;
      } else {
        EXPECT_TRUE(flat.starts_with(words)) << name;
      }
    }
  }
}

TEST(RulerNeedleText, NeedlesCoverAllDepths) {
  for (const char* name : {"niah_single_1", "niah_single_2", "niah_multikey_2"}) {
    std::set<int> tenths;
    for (int64_t index = 0; index < 80; ++index) {
      const Sample sample = task_of(name)->make(bytes_input(), 4000, index);
      const double depth = sample.depth.value();
      ASSERT_GE(depth, 0);
      ASSERT_LE(depth, 1);
      tenths.insert(static_cast<int>(depth * 9.999));
    }
    EXPECT_EQ(tenths.size(), 10u) << name;
  }
}

TEST(RulerVariables, ExecutedAssignmentsGiveTheReferences) {
  const auto task = task_of("vt:chains=3,hops=4");
  for (int64_t index = 0; index < 5; ++index) {
    const Sample sample = task->make(seedling_input(), 4096, index);
    const size_t own = sample.context.rfind("Remember the assignments");
    std::map<std::string, std::string> memory;
    static const std::regex assignment("VAR ([A-Z]{5}) = (VAR ([A-Z]{5})|[1-9][0-9]{4})");
    size_t lines = 0;
    for (const std::string& line : lines_of_text(sample.context.substr(own))) {
      std::smatch match;
      if (!std::regex_match(line, match, assignment)) continue;
      ++lines;
      EXPECT_EQ(memory.count(match[1]), 0u);
      EXPECT_TRUE(!match[3].matched || memory.count(match[3]) == 1)
          << "assigned from a variable without a value: " << line;
      memory[match[1]] = match[3].matched ? memory[match[3]] : std::string(match[2]);
    }
    EXPECT_EQ(lines, 15u);
    std::smatch value;
    ASSERT_TRUE(std::regex_search(sample.question, value, std::regex("[0-9]{5}")));
    std::set<std::string> matching;
    for (const auto& [name, value_of_name] : memory) {
      if (value_of_name == value[0]) matching.insert(name);
    }
    EXPECT_EQ(matching, std::set<std::string>(sample.references.begin(), sample.references.end()));
    EXPECT_EQ(sample.references.size(), 5u);
    EXPECT_NE(sample.lead.find("5 variables"), std::string::npos);
  }
}

TEST(RulerVariables, HaveAnAnsweredExampleWithOtherNames) {
  const Sample sample = task_of("vt")->make(seedling_input(), 4096, 0);
  const std::string example = sample.context.substr(0, sample.context.rfind("Remember the assignments"));
  std::smatch answer;
  ASSERT_TRUE(std::regex_search(example, answer, std::regex("held by 5 variables:(( [A-Z]{3}){5})\n")));
  std::istringstream names(answer[1]);
  for (std::string name; names >> name;) EXPECT_NE(example.find("VAR " + name + " = "), std::string::npos);
  EXPECT_LE(seedling_input().count(example), 500 + 60);  // in addition to the statement
  const Sample other = task_of("vt")->make(seedling_input(), 4096, 1);
  EXPECT_NE(other.context.substr(0, example.size()), example);
}

/// Returns how often each word occurs in a numbered list; expects the numbers to count up.
std::map<std::string, int> counted_list(const std::string& list) {
  std::map<std::string, int> counts;
  std::istringstream stream(list);
  int number = 1;
  for (std::string label, word; stream >> label >> word; ++number) {
    EXPECT_EQ(label, std::to_string(number) + ".");
    ++counts[word];
  }
  return counts;
}

TEST(RulerCommonWords, AreTheTenMostCommonWhenRecounted) {
  for (const auto& [length, frequent, rare, example_words] :
       {std::tuple(2048, 6, 1, 20), std::tuple(4096, 30, 3, 40), std::tuple(16384, 30, 3, 40)}) {
    const Sample sample = task_of("cwe")->make(seedling_input(), length, 0);
    const std::map<std::string, int> counts = counted_list(text_at(sample, sample.evidence.at(0)));
    std::set<std::string> common;
    for (const auto& [word, count] : counts) {
      EXPECT_TRUE(count == frequent || count == rare) << word << " " << count;
      if (count == frequent) common.insert(word);
    }
    EXPECT_EQ(common, std::set<std::string>(sample.references.begin(), sample.references.end()));
    EXPECT_EQ(common.size(), 10u);
    const size_t begin = sample.context.find("1. ");
    const auto shown = counted_list(sample.context.substr(begin, sample.context.find('\n', begin) - begin));
    EXPECT_EQ(static_cast<int>(shown.size()), example_words);
  }
}

TEST(RulerFrequentWords, FollowZipfAndAreRanksTwoToFourWhenRecounted) {
  const Sample sample = task_of("fwe")->make(seedling_input(), 8192, 0);
  std::map<std::string, int> counts;
  std::istringstream stream(text_at(sample, sample.evidence.at(0)));
  for (std::string word; stream >> word;) ++counts[word];
  std::vector<std::pair<int, std::string>> ranked;
  for (const auto& [word, count] : counts) ranked.emplace_back(count, word);
  std::ranges::sort(ranked, std::greater<>());
  EXPECT_EQ(ranked[0].second, "...");
  EXPECT_EQ(sample.references, (std::vector<std::string>{ranked[1].second, ranked[2].second, ranked[3].second}));
  EXPECT_GT(ranked[3].first, ranked[4].first);
  // 1000 words give counts 607, 151, 67, 37, 24: the first divided by squares
  for (int k = 2; k <= 5; ++k) EXPECT_NEAR(ranked[k - 1].first, ranked[0].first / double(k * k), 1) << k;
  for (const auto& [count, word] : ranked) EXPECT_TRUE(word == "..." || word.size() == 6) << word;
}

TEST(RulerFrequentWords, HaveDistinctRanksForAnyExponent) {
  for (const char* spec : {"fwe:alpha=1.2", "fwe:alpha=3.5"}) {
    const auto task = task_of(spec);
    const Sample sample = task->make(bytes_input(), std::max<int64_t>(1024, needed_by(*task, bytes_input())), 0);
    const std::string text = text_at(sample, sample.evidence.at(0));
    EXPECT_GT(occurrences(text, sample.references[0]), occurrences(text, sample.references[1])) << spec;
    EXPECT_GT(occurrences(text, sample.references[1]), occurrences(text, sample.references[2])) << spec;
  }
}

std::vector<std::string> documents_of(const Sample& sample) {
  std::vector<std::string> documents;
  static const std::regex heading("\nDocument ([0-9]+):\n");
  for (std::sregex_iterator it(sample.context.begin(), sample.context.end(), heading), end; it != end; ++it) {
    EXPECT_EQ((*it)[1], std::to_string(documents.size() + 1));
    const size_t begin = it->position() + it->length();
    documents.push_back(sample.context.substr(begin, sample.context.find("\n\n", begin) - begin));
  }
  return documents;
}

TEST(RulerQuestions, HaveTheAnswerOnlyInTheGoldDocument) {
  for (const char* name : {"qa_1", "qa_2"}) {
    for (int64_t index = 0; index < 20; ++index) {
      const Sample sample = task_of(name)->make(seedling_input(), 4096, index);
      const std::vector<std::string> documents = documents_of(sample);
      EXPECT_GT(documents.size(), 10u);
      const std::regex answer("\\b" + sample.references.at(0) + "\\b");
      size_t matching = 0;
      std::string gold;
      for (const std::string& document : documents) {
        if (!std::regex_search(document, answer)) continue;
        ++matching;
        gold = document;
      }
      EXPECT_EQ(matching, 1u) << sample.question;
      const std::string subject = gold.substr(0, gold.find(" was born"));
      if (std::string(name) == "qa_1") {
        EXPECT_NE(sample.question.find(subject), std::string::npos) << sample.question;
        continue;
      }
      EXPECT_EQ(sample.question.find(subject), std::string::npos) << "the second document must be needed";
      std::smatch pupil;
      ASSERT_TRUE(std::regex_search(sample.question, pupil, std::regex("from whom ([A-Za-z]+ [A-Za-z]+) learned")));
      const auto first = std::ranges::find_if(documents, [&](const std::string& text) {
        return text.starts_with(std::string(pupil[1]) + " was born");
      });
      ASSERT_NE(first, documents.end());
      EXPECT_NE(first->find("learned from " + subject), std::string::npos);
      EXPECT_EQ(sample.evidence.size(), 2u);
    }
  }
}

class RulerFiles : public ::testing::Test {
 protected:
  RulerFiles() : folder_(std::filesystem::temp_directory_path() / ("fathom-ruler-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~RulerFiles() override { std::filesystem::remove_all(folder_); }
  std::string write(const std::string& text) {
    const std::string path = folder_ / "set.json";
    std::ofstream(path) << text;
    return path;
  }
  static std::string error_of(const std::string& spec) {
    try {
      task_methods().make(spec);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  std::filesystem::path folder_;
};

TEST_F(RulerFiles, SquadUsesGoldThenItsArticleThenOthersAndSkipsUnanswerable) {
  std::string data;
  for (int article = 0; article < 3; ++article) {
    std::string paragraphs;
    for (int p = 0; p < 4; ++p) {
      const std::string name = "a" + std::to_string(article) + "p" + std::to_string(p);
      paragraphs += std::string(p ? "," : "") + R"({"context":"Text )" + name +
                    R"( here.","qas":[{"question":"Q )" + name + R"(?","is_impossible":)" +
                    (p == 1 ? "true" : "false") + R"(,"answers":[{"text":")" + name + R"("}]}]})";
    }
    data += std::string(article ? "," : "") + R"({"paragraphs":[)" + paragraphs + "]}";
  }
  const auto task = task_of("qa_1:file=" + write(R"({"data":[)" + data + "]}"));
  EXPECT_EQ(task->available(), 9);
  const TaskInput input = bytes_input();
  const Sample all = task->make(input, 165, 0);
  EXPECT_EQ(documents_of(all).size(), 12u);
  EXPECT_EQ(all.references, std::vector<std::string>{"a0p0"});
  EXPECT_EQ(all.question.find("a0p1"), std::string::npos);
  const Sample few = task->make(input, 130, 4);  // space for some: those of the same article
  size_t same = 0;
  for (const std::string& document : documents_of(few)) same += document.find("a1p") != std::string::npos;
  EXPECT_EQ(same, 4u);
  EXPECT_THROW(task->make(input, 1000, 0), Error) << "too few documents for the length";
}

TEST_F(RulerFiles, HotpotUsesItsOwnDocuments) {
  const auto task =
      task_of("qa_2:file=" +
              write(R"([{"question":"Who?","answer":"Ann","context":[["T1",["One. ","Ann."]],["T2",["Two."]]]},
    {"question":"What?","answer":"tea","context":[["T3",["Tea."]],["T4",["Four."]]]}])"));
  const Sample sample = task->make(bytes_input(), 100, 0);
  EXPECT_EQ(documents_of(sample).size(), 4u);
  EXPECT_NE(sample.context.find("T1\nOne. Ann."), std::string::npos);
  EXPECT_EQ(sample.references, std::vector<std::string>{"Ann"});
}

TEST_F(RulerFiles, InvalidFilesAreErrorsThatNameTheFile) {
  EXPECT_NE(error_of("qa_1:file=" + write("no json")).find("set.json: invalid JSON"), std::string::npos);
  EXPECT_NE(error_of("qa_1:file=" + write(R"({"data":[{"paragraphs":3}]})")).find("set.json"), std::string::npos);
  EXPECT_NE(error_of("qa_1:file=" + write(R"({"data":[]})")).find("contains no question"), std::string::npos);
  EXPECT_NE(error_of("qa_2:file=" + write(R"([{"question":1}])")).find("HotpotQA"), std::string::npos);
  EXPECT_NE(error_of("qa_2:file=/no/such/file").find("/no/such/file"), std::string::npos);
}

}  // namespace
}  // namespace fathom::eval
