// Articles and their topics, recognised by words that articles of other samples use.
#include <algorithm>
#include <map>

#include "task_bench.h"
#include "text_match.h"

namespace fathom::eval {
namespace {

/// Returns the words of each article by its number.
std::map<std::string, Strings> articles_of(const Sample& sample) {
  const std::string article = "Article ([0-9a-f]{6}):([^\n]*)";
  const Strings ids = matches(sample.context, article, 1), texts = matches(sample.context, article, 2);
  std::map<std::string, Strings> articles;
  for (size_t i = 0; i < ids.size(); ++i) articles[ids[i]] = matches(texts[i], "[a-z-]{3,}");
  return articles;
}

std::string queried_topic(const Sample& sample) {
  return joined(groups(sample.question, "on the topic ([a-z]+)\\?"), "");
}

/// How often articles on each topic use a word, learned from the references of other samples.
using TopicUsage = std::map<std::string, std::map<std::string, double>>;
TopicUsage learn() {
  TopicUsage usage;
  const auto task = task_of("same_topic");
  for (int64_t index = 1000; index < 1100; ++index) {
    const Sample sample = task->make(bytes_input(), 1500, index);
    for (const auto& [id, words] : articles_of(sample)) {
      if (sample.references[0].find(id) == std::string::npos) continue;
      for (const std::string& word : words) ++usage[word][queried_topic(sample)];
    }
  }
  return usage;
}

std::string topic_by_words(const Strings& words) {
  static const TopicUsage usage = learn();
  std::map<std::string, double> votes;
  for (const std::string& word : words) {
    const auto known = usage.find(word);
    if (known != usage.end() && known->second.size() == 1) ++votes[known->second.begin()->first];
  }
  return std::ranges::max_element(votes, {}, [](const auto& vote) { return vote.second; })->first;
}

TEST(Topics, WordsDetermineTheAnswerOfEveryQuestion) {
  for (const std::string name : {"topic_of", "same_topic", "count_topic"}) {
    const auto task = task_of(name);
    for (int64_t index = 0; index < 8; ++index) {
      const Sample sample = task->make(bytes_input(), 2500, index);
      Strings found;
      std::string answer;
      for (const auto& [id, words] : articles_of(sample)) {
        const bool named = Strings{id} == groups(sample.question, "article ([0-9a-f]{6})");
        if (named || topic_by_words(words) == queried_topic(sample)) found.push_back(id), answer += id + " ";
        if (named) answer = topic_by_words(words);
      }
      if (name == "count_topic") answer = std::to_string(found.size());
      EXPECT_EQ(value_of(*task, sample, answer), 1) << name << answer << sample.references[0];
      Strings evidence;
      for (const TextSpan span : sample.evidence) evidence.push_back(text_at(sample, span).substr(8, 6));
      std::ranges::sort(evidence);
      EXPECT_EQ(evidence, found);
    }
  }
}

TEST(Topics, SetsAreScoredByF1AndTopicsByTheFirstNamed) {
  Sample sample;
  sample.references = {"a1b2c3, 000111"};
  const auto sets = task_of("same_topic");
  EXPECT_EQ(value_of(*sets, sample, "000111 and A1B2C3."), 1);
  EXPECT_DOUBLE_EQ(value_of(*sets, sample, "000111, 000111"), 2.0 / 3);
  EXPECT_DOUBLE_EQ(value_of(*sets, sample, "000111, 222222, 333333"), 2.0 / 5);
  EXPECT_EQ(value_of(*sets, sample, "a1b2c3f, 0001"), 0);
  sample.references = {"music"};
  EXPECT_EQ(value_of(*task_of("topic_of"), sample, "Music, I think, not chess"), 1);
  EXPECT_EQ(value_of(*task_of("topic_of"), sample, "chess or music"), 0);
  sample.references = {"3"};
  EXPECT_EQ(value_of(*task_of("count_topic"), sample, "3 articles of 20"), 1);
  EXPECT_EQ(value_of(*task_of("count_topic"), sample, "13"), 0);
}

TEST(Topics, GuessingATopicScoresOneInTenAndACountOneInSix) {
  Rng rng(4, "guess", 0, 0);
  const std::string names[] = {"sailing",   "cooking", "music",   "farming", "medicine",
                               "astronomy", "law",     "weaving", "chess",   "mining"};
  double topics = 0, counts = 0;
  for (int64_t index = 0; index < 300; ++index) {
    const auto topic = task_of("topic_of"), count = task_of("count_topic");
    topics += value_of(*topic, topic->make(bytes_input(), 1100, index), rng.pick(names));
    counts += value_of(*count, count->make(bytes_input(), 1100, index), std::to_string(rng.between(1, 6)));
  }
  expect_chance(topics, 300, 1.0 / 10);
  expect_chance(counts, 300, 1.0 / 6);
}

}  // namespace
}  // namespace fathom::eval
