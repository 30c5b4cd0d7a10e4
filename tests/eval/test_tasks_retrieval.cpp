// Tasks whose answer is in the text, solved from the prompt alone.
#include <algorithm>
#include <map>
#include <set>

#include "task_bench.h"
#include "text_match.h"

namespace fathom::eval {
namespace {

const std::string kUuid = "[0-9a-f*]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";

struct UuidObject {
  std::multimap<std::string, std::string> pairs;
  Strings keys;  // in the order of the text
};
UuidObject parse(const Sample& sample) {
  UuidObject object;
  const Strings uuids = matches(sample.context, kUuid);
  for (size_t i = 0; i + 1 < uuids.size(); i += 2) {
    object.pairs.emplace(uuids[i], uuids[i + 1]);
    object.keys.push_back(uuids[i]);
  }
  return object;
}

/// Returns the last value and the keys of the longest path from `key`.
std::pair<std::string, Strings> follow(const UuidObject& object, const std::string& key) {
  std::pair<std::string, Strings> best{key, {}};
  const auto [begin, end] = object.pairs.equal_range(key);
  for (auto at = begin; at != end; ++at) {
    auto path = follow(object, at->second);
    path.second.insert(path.second.begin(), key);
    if (path.second.size() > best.second.size()) best = path;
  }
  return best;
}

TEST(KvThreads, FollowingTheObjectFindsEveryReference) {
  for (const char* kind : {"single", "multiple", "thread", "multi_thread", "branched"}) {
    const auto task = task_of(std::string("kv_threads:direction=random,hops=5,kind=") + kind);
    for (int64_t index = 0; index < 10; ++index) {
      const Sample sample = task->make(bytes_input(), 3000, index);
      const UuidObject object = parse(sample);
      Strings answers;
      for (const std::string& key : matches(sample.question, kUuid)) answers.push_back(follow(object, key).first);
      EXPECT_EQ("\"" + joined(answers, "\", \"") + "\"", sample.references[0]) << kind;
      EXPECT_EQ(value_of(*task, sample, " " + joined(answers, ", ")), 1) << kind;
    }
  }
}

TEST(KvThreads, ObjectIsJson) {
  const Sample sample = task_of("kv_threads:kind=single")->make(bytes_input(), 2000, 0);
  const auto object = Json::parse(sample.context.substr(sample.context.find('{')));
  EXPECT_EQ(object.size(), sample.details["pairs"]);
}

TEST(KvThreads, PairsFollowTheDirection) {
  for (const std::string direction : {"forward", "backward"}) {
    const Sample sample = task_of("kv_threads:hops=6,direction=" + direction)->make(bytes_input(), 4000, 0);
    const UuidObject object = parse(sample);
    std::vector<int64_t> positions;
    for (const std::string& key : follow(object, matches(sample.question, kUuid).at(0)).second) {
      positions.push_back(std::ranges::find(object.keys, key) - object.keys.begin());
    }
    EXPECT_EQ(positions.size(), 6u);
    if (direction == "backward") std::ranges::reverse(positions);
    EXPECT_TRUE(std::ranges::is_sorted(positions)) << direction;
  }
}

TEST(KvThreads, ConditionalExpectsTheMarkedKeysInAnyOrder) {
  const auto task = task_of("kv_threads:kind=conditional,needles=4");
  const Sample sample = task->make(bytes_input(), 4000, 0);
  Strings marked;
  for (const auto& [key, value] : parse(sample).pairs) {
    if (key.find('*') != std::string::npos) marked.push_back(value);
  }
  ASSERT_EQ(marked.size(), 4u);
  EXPECT_EQ(value_of(*task, sample, joined(marked, ", ")), 1);
  EXPECT_DOUBLE_EQ(value_of(*task, sample, joined({marked[1], marked[0]}, ", ")), 0.5);
  EXPECT_DOUBLE_EQ(value_of(*task, sample, joined(marked, ", ") + ", 1, 2, 3, 4"), 0.5);
}

TEST(KvThreads, ListsAreScoredByPosition) {
  const auto task = task_of("kv_threads:kind=multiple,needles=4");
  const Sample sample = task->make(bytes_input(), 4000, 0);
  Strings values = sample.details["values"].get<Strings>();
  std::swap(values[0], values[1]);
  EXPECT_DOUBLE_EQ(value_of(*task, sample, joined(values, ", ")), 0.5);
}

TEST(KvThreads, EvidenceContainsTheAnswerAndDepthItsPosition) {
  const auto task = task_of("kv_threads:kind=single");
  double depths = 0;
  for (int64_t index = 0; index < 200; ++index) {
    const Sample sample = task->make(bytes_input(), 1500, index);
    ASSERT_EQ(sample.evidence.size(), 1u);
    const auto value = sample.details["values"][0].get<std::string>();
    EXPECT_TRUE(text_at(sample, sample.evidence[0]).ends_with("\"" + value + "\""));
    EXPECT_EQ(matches(sample.prompt(), value).size(), 1u);
    EXPECT_NEAR(static_cast<double>(sample.evidence[0].begin), *sample.depth * sample.context.size(), 120);
    depths += *sample.depth;
  }
  EXPECT_NEAR(depths / 200, 0.5, 3 * std::sqrt(1.0 / 12 / 200));
}

/// Running text of ascending numbers, eight to a sentence.
class NumberHaystack final : public Haystack {
 public:
  explicit NumberHaystack(int64_t most = 1 << 30) : most_(most) {}
  const std::string& name() const override { return name_; }
  std::string text(Rng&, int64_t words) const override {
    std::string text;
    for (int64_t i = 0; i < std::min(words, most_); ++i) {
      text += (i > 0 ? " " : "") + std::to_string(100000 + i) + (i % 8 == 7 ? "." : "");
    }
    return text;
  }

 private:
  std::string name_ = "numbers";
  int64_t most_;
};

TEST(TextSort, SegmentsSortedByTheirContentAreTheReference) {
  const NumberHaystack numbers;
  TaskInput input = bytes_input();
  input.haystack = &numbers;
  const auto task = task_of("text_sort");
  for (int64_t index = 0; index < 20; ++index) {
    const Sample sample = task->make(input, 2000, index);
    std::vector<std::pair<std::string, std::string>> segments;  // first word and label
    for (const TextSpan span : sample.evidence) {
      const std::string text = text_at(sample, span);
      segments.emplace_back(matches(text, "\\d{6}").at(0), matches(text, "Segment (\\d):", 1).at(0));
      EXPECT_EQ((std::stoll(segments.back().first) - 100000) % 8, 0) << "segments begin with a sentence";
    }
    std::ranges::sort(segments);
    Strings order;
    for (const auto& [first, label] : segments) order.push_back(label);
    EXPECT_EQ(value_of(*task, sample, "[" + joined(order, ", ") + "]"), 1);
    const Strings words = matches(sample.context, "\\d{6}");
    EXPECT_EQ(std::set<std::string>(words.begin(), words.end()).size(), words.size());
    const auto last = *std::ranges::max_element(words);
    EXPECT_EQ(std::stoll(last) - 100000 + 1, std::ssize(words)) << "all words are used";
  }
}

TEST(TextSort, AnswersAreListsOrTheOnlyOrderInTheText) {
  const auto task = task_of("text_sort");
  Sample sample;
  sample.details["order"] = {2, 4, 1, 3};
  for (const char* correct : {"[2, 4, 1, 3]", " 2, 4, 1, 3]", "2 4 1 3", "first 2, then 4, then 1 and 3"}) {
    EXPECT_EQ(value_of(*task, sample, correct), 1) << correct;
  }
  for (const char* wrong : {"[2, 4, 3, 1]", "2 4 1", "2 4 1 3 1 2", "", "24"}) {
    EXPECT_EQ(value_of(*task, sample, wrong), 0) << wrong;
  }
  EXPECT_DOUBLE_EQ(task->score(sample, {"[2, 4, 3, 1]", {}}).details["in_place"].get<double>(), 0.5);
}

TEST(TextSort, GuessingScoresOneInTwentyFour) {
  const auto task = task_of("text_sort");
  Rng rng(7, "guess", 0, 0);
  double correct = 0;
  for (int64_t index = 0; index < 600; ++index) {
    Strings guess = {"1", "2", "3", "4"};
    rng.shuffle(guess);
    correct += value_of(*task, task->make(bytes_input(), 600, index), "[" + joined(guess, ", ") + "]");
  }
  expect_chance(correct, 600, 1.0 / 24);
}

TEST(TextSort, ATooShortHaystackIsNamed) {
  const NumberHaystack numbers(500);
  TaskInput input = bytes_input();
  input.haystack = &numbers;
  try {
    task_of("text_sort")->make(input, 8000, 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("haystack numbers: too short: the whole text gives "),
              std::string::npos)
        << error.what();
  }
  EXPECT_NO_THROW(task_of("text_sort")->make(input, 700, 0));
}

TEST(BestAnswer, OnlyTheReferenceRecommendsAllRequiredItems) {
  const auto task = task_of("best_answer");
  for (int64_t index = 0; index < 20; ++index) {
    const Sample sample = task->make(bytes_input(), 4000, index);
    const std::string pattern = " (an? [a-z]+), (an? [a-z]+) and (an? [a-z]+)";
    Strings expected;
    for (int i = 1; i <= 3; ++i) expected.push_back(matches(sample.question, ":" + pattern, i).at(0));
    std::ranges::sort(expected);
    int64_t label = 0, solutions = 0, solution = 0;
    for (const std::string& advice : matches(sample.context, "recommends" + pattern)) {
      Strings named;
      for (int i = 1; i <= 3; ++i) named.push_back(matches(advice, pattern, i).at(0));
      std::ranges::sort(named);
      ++label;
      if (named == expected) ++solutions, solution = label;
    }
    EXPECT_EQ(label, sample.details["answers"]);
    EXPECT_EQ(solutions, 1);
    EXPECT_EQ(value_of(*task, sample, " A" + std::to_string(solution)), 1);
    EXPECT_TRUE(matches(text_at(sample, sample.evidence.at(0)), expected[0]).size() == 1);
  }
}

TEST(BestAnswer, TheHighestLabelElseTheFirstNumberIsScored) {
  const auto task = task_of("best_answer");
  Sample sample;
  sample.references = {"A12"};
  for (const char* correct : {"A12", "Answer A12.", "A1 or A12", "12", "number 12 of 13"}) {
    EXPECT_EQ(value_of(*task, sample, correct), 1) << correct;
  }
  for (const char* wrong : {"A1", "A12 or A13", "A1 2", "A", "1 12", ""}) {
    EXPECT_EQ(value_of(*task, sample, wrong), 0) << wrong;
  }
}

TEST(BestAnswer, GuessingScoresOneOverTheAnswers) {
  const auto task = task_of("best_answer");
  Rng rng(8, "guess", 0, 0);
  double correct = 0;
  for (int64_t index = 0; index < 300; ++index) {
    const Sample sample = task->make(bytes_input(), 1024, index);
    ASSERT_EQ(sample.details["answers"], 8);
    correct += value_of(*task, sample, "A" + std::to_string(1 + rng.below(8)));
  }
  expect_chance(correct, 300, 1.0 / 8);
}

TEST(Reorder, EventsSortedByYearAreTheReference) {
  const auto task = task_of("reorder:events=6");
  for (int64_t index = 0; index < 20; ++index) {
    const Sample sample = task->make(bytes_input(), 3000, index);
    const Strings numbers = matches(sample.question, "(\\d+)\\. (.*)\n", 1);
    const Strings events = matches(sample.question, "(\\d+)\\. (.*)\n", 2);
    ASSERT_EQ(events.size(), 6u);
    std::vector<std::pair<std::string, std::string>> dated;
    for (size_t i = 0; i < events.size(); ++i) {
      const Strings years = matches(sample.context, "In (\\d{4}) " + events[i] + "\\.", 1);
      ASSERT_EQ(years.size(), 1u) << events[i];
      dated.emplace_back(years[0], numbers[i]);
    }
    std::ranges::sort(dated);
    Strings order;
    for (const auto& [year, number] : dated) order.push_back(number);
    EXPECT_EQ(value_of(*task, sample, joined(order, " ")), 1);
    for (const TextSpan span : sample.evidence)
      EXPECT_EQ(matches(text_at(sample, span), "^In \\d{4} .*\\.$").size(), 1u);
  }
}

TEST(Reorder, DeviationsAreZeroForTheOrderAndMaximalForNonPermutations) {
  const auto task = task_of("reorder");
  Sample sample;
  sample.details["order"] = {2, 1, 4, 3};
  const auto deviations = [&](const char* text) { return task->score(sample, {text, {}}).details.dump(); };
  EXPECT_EQ(deviations("2 1 4 3"), R"({"location_deviation":0.0,"square_deviation":0.0,"swap_deviation":0})");
  EXPECT_EQ(deviations("3 4 1 2"), R"({"location_deviation":2.0,"square_deviation":5.0,"swap_deviation":2})");
  EXPECT_EQ(deviations("1 2 3"), R"({"location_deviation":2.0,"square_deviation":5.0,"swap_deviation":3})");
  EXPECT_EQ(deviations("1 2 3 7"), R"({"location_deviation":2.0,"square_deviation":5.0,"swap_deviation":3})");
}

}  // namespace
}  // namespace fathom::eval
