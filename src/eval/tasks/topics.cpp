// Many short articles, each with a number of its own: the topic of one, all on one topic, or how many these are.
#include <algorithm>
#include <set>

#include "base/error.h"
#include "eval/metrics.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

/// What articles on a topic speak of; no word belongs to two topics.
struct Topic {
  std::string_view name, who[3], thing[9], did[4];
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

// {W} who, {T} thing, {D} did, {P} a person.
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
    const char slot = shape[i + 1];
    text += slot == 'W'   ? rng.pick(topic.who)
            : slot == 'T' ? rng.pick(topic.thing)
            : slot == 'D' ? rng.pick(topic.did)
                          : rng.pick(first_names());
    i += 2;
  }
  return text;
}

enum class Asked { kTopic, kNumbers, kCount };

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

/// The six-digit hexadecimal numbers in a text, each once.
std::vector<std::string> ids_in(std::string_view text) {
  std::vector<std::string> ids;
  const std::string small = lower_case(text);
  for (size_t begin = 0; begin < small.size();) {
    const size_t end = std::min(small.find_first_not_of("0123456789abcdef", begin), small.size());
    const std::string id = small.substr(begin, end - begin);
    if (id.size() == 6 && std::ranges::count(ids, id) == 0) ids.push_back(id);
    begin = end + 1;
  }
  return ids;
}

class Topics final : public Task {
 public:
  Topics(std::string name, Asked asked, int64_t tokens) : Task(std::move(name)), asked_(asked), tokens_(tokens) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    const Rng start = rng(input, length, index);
    const int64_t articles = std::max(kLeastArticles, length / tokens_);
    return fit_sample(*this, input, length, articles, articles + length,
                      [&](int64_t sentences) { return build(input, articles, sentences, start); });
  }

  /// topic_of: 1 if the first topic named is the right one. same_topic: F1 of the set of articles. count_topic: 1
  /// if the first number is right.
  Score score(const Sample& sample, const Answer& answer) const override {
    if (asked_ == Asked::kTopic) return {first_topic(answer.text) == sample.references[0] ? 1.0 : 0.0};
    if (asked_ == Asked::kCount) {
      const std::vector<int64_t> numbers = numbers_in(answer.text);
      return {!numbers.empty() && std::to_string(numbers[0]) == sample.references[0] ? 1.0 : 0.0};
    }
    const std::vector<std::string> given = ids_in(first_line(answer.text)), right = ids_in(sample.references[0]);
    int64_t both = 0;
    for (const std::string& id : given) both += std::ranges::count(right, id);
    return {2.0 * static_cast<double>(both) / static_cast<double>(given.size() + right.size())};
  }

 private:
  static constexpr int64_t kLeastArticles = 4, kMostMembers = 6;

  static std::string_view first_topic(std::string_view text) {
    std::string_view first;
    const std::string small = lower_case(text);
    size_t least = std::string::npos;
    for (const Topic& topic : kTopics) {
      const size_t at = small.find(topic.name);
      if (at < least) least = at, first = topic.name;
    }
    return first;
  }

  Sample build(const TaskInput& input, int64_t articles, int64_t sentences, Rng rng) const {
    const int64_t asked = rng.below(kTopicCount);
    // The articles that are asked for. Only they are on the topic, but where one topic is the answer.
    const int64_t most = asked_ == Asked::kTopic ? 1 : std::min(kMostMembers, articles - 1);
    std::vector<bool> wanted(articles, false);
    const int64_t least = asked_ == Asked::kNumbers ? 2 : 1;
    for (const int64_t article : rng.distinct(articles, rng.between(least, most))) wanted[article] = true;
    const std::vector<std::string> ids = draw_ids(rng, articles);
    std::vector<std::string> found;
    Sample sample;
    sample.context = "Below are articles, each with a number.\n\n";
    for (int64_t i = 0; i < articles; ++i) {
      const int64_t apart = rng.between(asked_ == Asked::kTopic ? 0 : 1, kTopicCount - 1);
      const Topic& topic = kTopics[(asked + (wanted[i] ? 0 : apart)) % kTopicCount];
      std::string text = "Article " + ids[i] + ":";
      const int64_t share = sentences / articles + (i < sentences % articles);
      for (int64_t sentence = 0; sentence < share; ++sentence) text += " " + draw_sentence(rng, topic);
      const TextSpan span = append_part(sample.context, text);
      sample.context += "\n\n";
      if (!wanted[i]) continue;
      sample.evidence.push_back(span);
      found.push_back(ids[i]);
    }
    if (asked_ == Asked::kTopic) {
      sample.depth = static_cast<double>(sample.evidence[0].begin) / static_cast<double>(sample.context.size());
    }
    ask(kTopics[asked].name, found, sample);
    sample.reserve = reserve_for(input, sample.references[0]);
    sample.stop = {"\n"};
    sample.details["articles"] = articles;
    return sample;
  }

  void ask(std::string_view topic, const std::vector<std::string>& found, Sample& sample) const {
    std::vector<std::string_view> names;
    for (const Topic& each : kTopics) names.push_back(each.name);
    const std::string all = "The topics are: " + join(names, ", ") + ".\n";
    if (asked_ == Asked::kTopic) {
      sample.question = concat(all, "Question: What is the topic of article ", found[0], "?\n");
      sample.lead = concat("Answer: The topic of article ", found[0], " is");
      sample.references = {std::string(topic)};
    } else if (asked_ == Asked::kNumbers) {
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

  Asked asked_;
  int64_t tokens_;
};

MethodInfo describe(const char* name, const char* summary) {
  return {
      .name = name,
      .summary = summary,
      .paper = "M4LE: A Multi-Ability Multi-Range Multi-Task Multi-Domain Long-Context Evaluation Benchmark, 2023",
      .needs = "any model",
      .parameters = {{"tokens", Parameter::Type::kInt, "128", "of one article, about", 64, 1e6, {}}}};
}
TaskList topics_task(const char* name, Asked asked, const Values& values) {
  return {std::make_shared<Topics>(name, asked, values.integer("tokens"))};
}

}  // namespace

MethodInfo topic_of_info() {
  return describe("topic_of", "the topic of one of many short articles, named by its number");
}
TaskList make_topic_of(const Values& values) { return topics_task("topic_of", Asked::kTopic, values); }

MethodInfo same_topic_info() { return describe("same_topic", "the numbers of all short articles on one topic"); }
TaskList make_same_topic(const Values& values) { return topics_task("same_topic", Asked::kNumbers, values); }

MethodInfo count_topic_info() {
  return describe("count_topic", "how many of many short articles are on one topic, 1 to 6");
}
TaskList make_count_topic(const Values& values) { return topics_task("count_topic", Asked::kCount, values); }

}  // namespace fathom::eval
