// A JSON object of UUIDs: values to look up, or values that are keys of further pairs and so form threads.
#include <algorithm>
#include <map>

#include "base/error.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

enum class KvThreadKind { kSingle, kMultiple, kConditional, kThread, kMultiThread, kBranched };
constexpr std::string_view kKinds[] = {"single", "multiple", "conditional", "thread", "multi_thread", "branched"};
constexpr char kMark = '*';
constexpr std::string_view kAroundValue = " \t\r\n\"'[]{}.,`";

struct KvThreadOptions {
  KvThreadKind kind;
  int64_t needles, hops, threads, branches;
  std::string direction;
};

/// The pairs that answer the question, in the order in which they are used.
struct KvNeedles {
  struct Pair {
    std::string key, value;
    int64_t position;  // index among all pairs
  };
  std::vector<Pair> pairs;
  std::vector<std::string> queried;  // keys in the question
  std::vector<std::string> values;   // the answer
};

std::string quoted_list(const std::vector<std::string>& uuids) {
  return uuids.empty() ? "" : "\"" + join(uuids, "\", \"") + "\"";
}

class KvThreads final : public Task {
 public:
  KvThreads(std::string name, KvThreadOptions options) : Task(std::move(name)), options_(std::move(options)) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    const Rng start = rng(input, length, index);
    return fit_sample(*this, input, length, needed_pairs(), std::max(needed_pairs(), length),
                      [&](int64_t pairs) { return build(input, pairs, start); });
  }

  /// Scores the share of the values that are correct at their positions. For kind=conditional the order is ignored,
  /// and the divisor is the number of answered values if that is larger.
  Score score(const Sample& sample, const Answer& answer) const override {
    const auto expected = sample.details["values"].get<std::vector<std::string>>();
    std::vector<std::string> answered;
    for (const std::string_view part : split(first_line(answer.text), ',')) {
      answered.emplace_back(strip(part, kAroundValue).substr(0, expected[0].size()));
    }
    size_t correct = 0, count = expected.size();
    if (options_.kind == KvThreadKind::kConditional) {
      std::ranges::sort(answered);
      answered.erase(std::unique(answered.begin(), answered.end()), answered.end());
      for (const std::string& value : expected) correct += std::ranges::count(answered, value);
      count = std::max(count, answered.size());
    } else {
      for (size_t i = 0; i < std::min(count, answered.size()); ++i) correct += answered[i] == expected[i];
    }
    return {static_cast<double>(correct) / static_cast<double>(count)};
  }

 private:
  int64_t threads() const { return options_.kind == KvThreadKind::kMultiThread ? options_.threads : 1; }
  int64_t dead_ends() const {
    return options_.kind == KvThreadKind::kBranched ? (options_.hops - 1) * (options_.branches - 1) : 0;
  }
  int64_t needed_pairs() const {
    if (options_.kind == KvThreadKind::kSingle) return 1;
    if (options_.kind == KvThreadKind::kMultiple || options_.kind == KvThreadKind::kConditional)
      return options_.needles;
    return threads() * options_.hops + dead_ends();
  }

  KvNeedles draw_lookups(Rng& rng, int64_t pairs) const {
    KvNeedles needles;
    std::vector<int64_t> positions = rng.distinct(pairs, needed_pairs());
    if (options_.kind == KvThreadKind::kConditional) std::ranges::sort(positions);
    for (const int64_t position : positions) {
      std::string key = random_uuid(rng);
      if (options_.kind == KvThreadKind::kConditional) key[rng.below(8)] = kMark;
      needles.pairs.push_back({key, random_uuid(rng), position});
      needles.queried.push_back(key);
      needles.values.push_back(needles.pairs.back().value);
    }
    return needles;
  }

  /// The value of pair i of a thread is the key of pair i + 1. Branches are further pairs with the same key whose
  /// values are no keys. The last key has only one value, so the thread is the longest path.
  KvNeedles draw_threads(Rng& rng, int64_t pairs) const {
    std::vector<int64_t> positions = rng.distinct(pairs, needed_pairs());
    KvNeedles needles;
    for (int64_t thread = 0; thread < threads(); ++thread) {
      const auto first = positions.begin() + thread * options_.hops;
      if (options_.direction == "forward") std::sort(first, first + options_.hops);
      if (options_.direction == "backward") std::sort(first, first + options_.hops, std::greater<>());
      std::string key = random_uuid(rng);
      needles.queried.push_back(key);
      for (int64_t hop = 0; hop < options_.hops; ++hop) {
        needles.pairs.push_back({key, random_uuid(rng), first[hop]});
        key = needles.pairs.back().value;
      }
      needles.values.push_back(key);
    }
    for (int64_t i = 0; i < dead_ends(); ++i) {
      needles.pairs.push_back(
          {needles.pairs[i % (options_.hops - 1)].key, random_uuid(rng), positions[options_.hops + i]});
    }
    return needles;
  }

  std::string question(const KvNeedles& needles) const {
    const std::string queried = quoted_list(needles.queried);
    switch (options_.kind) {
      case KvThreadKind::kSingle:
        return concat("Question: Which value belongs to the key ", queried, "?\n");
      case KvThreadKind::kMultiple:
        return concat("Question: Which values belong to the keys ", queried,
                      "? Name them in the order of the keys.\n");
      case KvThreadKind::kConditional:
        return concat("Question: Which values have a key with the character ", kMark,
                      " in it? Name all of them.\n");
      case KvThreadKind::kThread:
        return concat("Question: Some values are keys of other pairs. Begin at the key ", queried,
                      ", take its value as the next key as long as there is such a key. Which value comes last?\n");
      case KvThreadKind::kMultiThread:
        return concat("Question: Some values are keys of other pairs. From each of the keys ", queried,
                      ", take the value as the next key as long as there is such a key. Which values come last? "
                      "Name them in the order of the keys.\n");
      default:
        return concat(
            "Question: Some values are keys of other pairs, and some keys occur more than once. From the key ",
            queried, ", taking a value as the next key, many paths begin. Which value ends the longest?\n");
    }
  }

  std::string lead(const KvNeedles& needles) const {
    if (options_.kind == KvThreadKind::kSingle) return "Answer: \"" + needles.queried[0] + "\":";
    return needles.values.size() == 1 ? "Answer: The last value is" : "Answer: The values are";
  }

  Sample build(const TaskInput& input, int64_t pairs, Rng rng) const {
    const bool lookup = options_.kind <= KvThreadKind::kConditional;
    const double depth = rng.uniform();
    KvNeedles needles = lookup ? draw_lookups(rng, pairs) : draw_threads(rng, pairs);
    if (options_.kind == KvThreadKind::kSingle) {
      needles.pairs[0].position = static_cast<int64_t>(depth * static_cast<double>(pairs));
    }
    std::map<int64_t, const KvNeedles::Pair*> needle_at;
    for (const KvNeedles::Pair& pair : needles.pairs) needle_at[pair.position] = &pair;
    Sample sample;
    sample.context = "The JSON object below holds pairs of a key and a value.\n\n{\n";
    for (int64_t i = 0; i < pairs; ++i) {
      const auto needle = needle_at.find(i);
      if (needle == needle_at.end()) {
        const std::string value = random_uuid(rng), key = random_uuid(rng);
        sample.context += concat(" \"", key, "\": \"", value, "\",\n");
        continue;
      }
      const auto& [key, value, position] = *needle->second;
      sample.context += ' ';
      sample.evidence.push_back(append_part(sample.context, concat("\"", key, "\": \"", value, "\"")));
      sample.context += ",\n";
    }
    sample.context.erase(sample.context.size() - 2, 1);  // no comma after the last pair
    sample.context += "}\n\n";
    sample.question = question(needles);
    sample.lead = lead(needles);
    sample.references = {quoted_list(needles.values)};
    sample.reserve = reserve_for(input, sample.references[0]);
    sample.stop = {"\n"};
    if (options_.kind == KvThreadKind::kSingle) sample.depth = depth;
    sample.details["pairs"] = pairs;
    sample.details["values"] = needles.values;
    return sample;
  }

  KvThreadOptions options_;
};

std::string name_of(const KvThreadOptions& options) {
  const std::string name = concat("kv_threads/", kKinds[static_cast<size_t>(options.kind)]);
  const std::string hops = concat("_", options.hops, "_", options.direction);
  switch (options.kind) {
    case KvThreadKind::kSingle:
      return name;
    case KvThreadKind::kMultiple:
    case KvThreadKind::kConditional:
      return concat(name, "_", options.needles);
    case KvThreadKind::kThread:
      return name + hops;
    case KvThreadKind::kMultiThread:
      return concat(name, "_", options.threads, hops);
    default:
      return concat(name, "_", options.branches, hops);
  }
}

}  // namespace

MethodInfo kv_threads_info() {
  using Type = Parameter::Type;
  return {.name = "kv_threads",
          .summary = "values of a JSON object of UUIDs: look them up, or follow them as keys of further pairs",
          .paper = "Needle Threading: Can LLMs Follow Threads through Near-Million-Scale Haystacks?, 2024",
          .needs = "any model",
          .parameters = {
              {"kind",
               Type::kChoice,
               "thread",
               "single, multiple or conditional look-ups, one thread, several threads, or a branched thread",
               {},
               {},
               {std::begin(kKinds), std::end(kKinds)}},
              {"hops", Type::kInt, "4", "pairs along a thread; more is harder", 2, 100, {}},
              {"threads", Type::kInt, "3", "threads of kind=multi_thread; more is harder", 2, 100, {}},
              {"branches", Type::kInt, "2", "values per key of kind=branched; more is harder", 2, 100, {}},
              {"needles", Type::kInt, "5", "values of kind=multiple and conditional; more is harder", 2, 1000, {}},
              {"direction",
               Type::kChoice,
               "forward",
               "where the next pair of a thread is: after the last, before it, or anywhere",
               {},
               {},
               {"forward", "backward", "random"}}}};
}

TaskList make_kv_threads(const Values& values) {
  const auto kind = std::ranges::find(kKinds, values.string("kind")) - std::begin(kKinds);
  const KvThreadOptions options{static_cast<KvThreadKind>(kind), values.integer("needles"),
                                values.integer("hops"),          values.integer("threads"),
                                values.integer("branches"),      values.string("direction")};
  return {std::make_shared<KvThreads>(name_of(options), options)};
}

}  // namespace fathom::eval
