// Many short articles, each with a number. The question is about the topic of one of them, the numbers of all
// articles on a topic, or their count.
#include <algorithm>
#include <set>

#include "base/error.h"
#include "eval/metrics.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

/// A topic and its words; no word belongs to two topics.
struct Topic {
  std::string_view name, people[3], objects[9], actions[4];
};
constexpr Topic kTopics[] = {
    {"sailing",
     {"helmsman", "deckhand", "skipper"},
     {"mast", "rudder", "keel", "jib", "halyard", "anchorage", "lee shore", "tiller", "mainsail"},
     {"trimmed", "hoisted", "moored", "reefed"}},
    {"cooking",
     {"chef", "pastry cook", "kitchen maid"},
     {"saucepan", "dough", "gravy", "oven", "ladle", "broth", "seasoning", "roast", "frying pan"},
     {"simmered", "stirred", "seasoned", "peeled"}},
    {"music",
     {"violinist", "conductor", "soprano"},
     {"melody", "sonata", "chord", "overture", "tuning fork", "string quartet", "score", "refrain", "cello"},
     {"rehearsed", "composed", "hummed", "transposed"}},
    {"farming",
     {"ploughman", "shepherd", "milkmaid"},
     {"haystack", "furrow", "cowshed", "seed drill", "pasture", "barley", "harrow", "hayloft", "fallow field"},
     {"sowed", "threshed", "ploughed", "mowed"}},
    {"medicine",
     {"surgeon", "nurse", "physician"},
     {"fever", "bandage", "ointment", "ward", "pulse", "diagnosis", "vaccine", "stethoscope", "fracture"},
     {"prescribed", "disinfected", "diagnosed", "inoculated"}},
    {"astronomy",
     {"stargazer", "observatory keeper", "comet hunter"},
     {"telescope", "comet", "nebula", "eclipse", "orbit", "constellation", "planet", "meteor", "galaxy"},
     {"catalogued", "magnified", "photographed", "charted"}},
    {"law",
     {"judge", "barrister", "notary"},
     {"verdict", "statute", "witness stand", "indictment", "appeal", "jury", "affidavit", "hearing", "lawsuit"},
     {"overruled", "sentenced", "cross-examined", "acquitted"}},
    {"weaving",
     {"weaver", "dyer", "spinner"},
     {"loom", "shuttle", "warp", "yarn", "bobbin", "tapestry", "weft", "spindle", "woollen cloth"},
     {"spun", "dyed", "wove", "carded"}},
    {"chess",
     {"grandmaster", "challenger", "arbiter"},
     {"rook", "bishop", "pawn", "checkmate", "endgame", "gambit", "castling", "stalemate", "opening move"},
     {"sacrificed", "captured", "defended", "resigned over"}},
    {"mining",
     {"pitman", "foreman", "prospector"},
     {"shaft", "ore", "pickaxe", "coal seam", "pit pony", "tunnel", "lode", "drill bit", "slag heap"},
     {"excavated", "blasted", "smelted", "propped up"}},
};
constexpr int64_t kTopicCount = std::ssize(kTopics);

// Placeholders: {W} person by trade, {T} object, {D} past action, {P} name.
constexpr std::string_view kSentences[] = {
    "The {W} {D} the {T} long before anyone had thought of the {T}.",
    "Without the {T}, said {P}, there would be no use for the {T}.",
    "Every {W} knows that the {T} comes first and the {T} after it.",
    "{P} {D} the {T} twice, and then asked the {W} about the {T}.",
    "All day they talked of the {T}, the {T} and once more of the {T}.",
    "Once the {W} had {D} the {T}, nothing was left to be done.",
    "It was the {T}, and not the {T}, that made {P} famous as {W}.",
    "What the old {W} wrote about the {T} is still read by many.",
};

std::string draw_sentence(Rng& rng, const Topic& topic) {
  const std::string_view shape = rng.pick(kSentences);
  std::string text;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] != '{') {
      text += shape[i];
      continue;
    }
    const char placeholder = shape[i + 1];
    text += placeholder == 'W'   ? rng.pick(topic.people)
            : placeholder == 'T' ? rng.pick(topic.objects)
            : placeholder == 'D' ? rng.pick(topic.actions)
                                 : rng.pick(first_names());
    i += 2;
  }
  return text;
}

enum class TopicQuestion { kTopic, kNumbers, kCount };

std::string draw_id(Rng& rng) {
  std::string id;
  for (int i = 0; i < 6; ++i) id += "0123456789abcdef"[rng.below(16)];
  return id;
}

std::vector<std::string> draw_ids(Rng& rng, int64_t count) {
  std::set<std::string> taken;
  std::vector<std::string> ids;
  while (std::ssize(ids) < count) {
    const auto [id, fresh] = taken.insert(draw_id(rng));
    if (fresh) ids.push_back(*id);
  }
  return ids;
}

/// Returns the six-digit hexadecimal numbers in a text, each once.
std::vector<std::string> ids_in(std::string_view text) {
  std::vector<std::string> ids;
  const std::string lowered = lower_case(text);
  for (size_t begin = 0; begin < lowered.size();) {
    const size_t end = std::min(lowered.find_first_not_of("0123456789abcdef", begin), lowered.size());
    const std::string id = lowered.substr(begin, end - begin);
    if (id.size() == 6 && std::ranges::count(ids, id) == 0) ids.push_back(id);
    begin = end + 1;
  }
  return ids;
}

class Topics final : public Task {
 public:
  Topics(std::string name, TopicQuestion topic_index, int64_t tokens)
      : Task(std::move(name)), question_(topic_index), tokens_(tokens) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    const Rng start = rng(input, length, index);
    const int64_t articles = std::max(kMinArticles, length / tokens_);
    return fit_sample(*this, input, length, articles, articles + length,
                      [&](int64_t sentences) { return build(input, articles, sentences, start); });
  }

  /// topic_of scores 1 if the first topic named is correct, same_topic F1 of the set of articles, count_topic 1 if
  /// the first number is correct.
  Score score(const Sample& sample, const Answer& answer) const override {
    if (question_ == TopicQuestion::kTopic) return {first_topic(answer.text) == sample.references[0] ? 1.0 : 0.0};
    if (question_ == TopicQuestion::kCount) {
      const std::vector<int64_t> numbers = numbers_in(answer.text);
      return {!numbers.empty() && std::to_string(numbers[0]) == sample.references[0] ? 1.0 : 0.0};
    }
    const std::vector<std::string> answered = ids_in(first_line(answer.text)),
                                   expected = ids_in(sample.references[0]);
    int64_t both = 0;
    for (const std::string& id : answered) both += std::ranges::count(expected, id);
    return {2.0 * static_cast<double>(both) / static_cast<double>(answered.size() + expected.size())};
  }

 private:
  static constexpr int64_t kMinArticles = 4, kMaxMembers = 6;

  static std::string_view first_topic(std::string_view text) {
    std::string_view first;
    const std::string lowered = lower_case(text);
    size_t earliest = std::string::npos;
    for (const Topic& topic : kTopics) {
      const size_t at = lowered.find(topic.name);
      if (at < earliest) earliest = at, first = topic.name;
    }
    return first;
  }

  Sample build(const TaskInput& input, int64_t articles, int64_t sentences, Rng rng) const {
    const int64_t topic_index = rng.below(kTopicCount);
    // Articles that answer the question. Only they are on the topic, except in topic_of, where others may also be.
    const int64_t max_members = question_ == TopicQuestion::kTopic ? 1 : std::min(kMaxMembers, articles - 1);
    std::vector<bool> selected(articles, false);
    const int64_t min_members = question_ == TopicQuestion::kNumbers ? 2 : 1;
    for (const int64_t article : rng.distinct(articles, rng.between(min_members, max_members)))
      selected[article] = true;
    const std::vector<std::string> ids = draw_ids(rng, articles);
    std::vector<std::string> found;
    Sample sample;
    sample.context = "Below are articles, each with a number.\n\n";
    for (int64_t i = 0; i < articles; ++i) {
      const int64_t offset = rng.between(question_ == TopicQuestion::kTopic ? 0 : 1, kTopicCount - 1);
      const Topic& topic = kTopics[(topic_index + (selected[i] ? 0 : offset)) % kTopicCount];
      std::string text = "Article " + ids[i] + ":";
      const int64_t share = sentences / articles + (i < sentences % articles);
      for (int64_t sentence = 0; sentence < share; ++sentence) text += " " + draw_sentence(rng, topic);
      const TextSpan span = append_part(sample.context, text);
      sample.context += "\n\n";
      if (!selected[i]) continue;
      sample.evidence.push_back(span);
      found.push_back(ids[i]);
    }
    if (question_ == TopicQuestion::kTopic) {
      sample.depth = static_cast<double>(sample.evidence[0].begin) / static_cast<double>(sample.context.size());
    }
    set_question(kTopics[topic_index].name, found, sample);
    sample.reserve = reserve_for(input, sample.references[0]);
    sample.stop = {"\n"};
    sample.details["articles"] = articles;
    return sample;
  }

  void set_question(std::string_view topic, const std::vector<std::string>& found, Sample& sample) const {
    std::vector<std::string_view> names;
    for (const Topic& each : kTopics) names.push_back(each.name);
    const std::string all = "The topics are: " + join(names, ", ") + ".\n";
    if (question_ == TopicQuestion::kTopic) {
      sample.question = concat(all, "Question: What is the topic of article ", found[0], "?\n");
      sample.lead = concat("Answer: The topic of article ", found[0], " is");
      sample.references = {std::string(topic)};
    } else if (question_ == TopicQuestion::kNumbers) {
      sample.question =
          concat(all, "Question: Which articles are on the topic ", topic, "? Give all their numbers.\n");
      sample.lead = concat("Answer: The articles on ", topic, " are");
      sample.references = {join(found, ", ")};
    } else {
      sample.question = concat(all, "Question: How many of the articles are on the topic ", topic, "?\n");
      sample.lead = concat("Answer: The number of articles on ", topic, " is");
      sample.references = {std::to_string(found.size())};
    }
  }

  TopicQuestion question_;
  int64_t tokens_;
};

MethodInfo describe(const char* name, const char* summary) {
  return {
      .name = name,
      .summary = summary,
      .paper = "M4LE: A Multi-Ability Multi-Range Multi-Task Multi-Domain Long-Context Evaluation Benchmark, 2023",
      .needs = "any model",
      .parameters = {{"tokens",
                      Parameter::Type::kInt,
                      "128",
                      "approximate tokens of one article; more gives fewer articles",
                      64,
                      1e6,
                      {}}}};
}
TaskList topics_task(const char* name, TopicQuestion topic_index, const Values& values) {
  return {std::make_shared<Topics>(name, topic_index, values.integer("tokens"))};
}

}  // namespace

MethodInfo topic_of_info() {
  return describe("topic_of", "many short articles: name the topic of one, given its number");
}
TaskList make_topic_of(const Values& values) { return topics_task("topic_of", TopicQuestion::kTopic, values); }

MethodInfo same_topic_info() {
  return describe("same_topic", "many short articles: list the numbers of all on one topic");
}
TaskList make_same_topic(const Values& values) {
  return topics_task("same_topic", TopicQuestion::kNumbers, values);
}

MethodInfo count_topic_info() {
  return describe("count_topic", "many short articles: count those on one topic (1 to 6)");
}
TaskList make_count_topic(const Values& values) {
  return topics_task("count_topic", TopicQuestion::kCount, values);
}

}  // namespace fathom::eval
