// One JSON object full of UUIDs: values that are looked up, or that are keys themselves and so make threads to
// follow.
#include <algorithm>
#include <map>

#include "base/error.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

enum class Kind { kSingle, kMultiple, kConditional, kThread, kMultiThread, kBranched };
constexpr std::string_view kKinds[] = {"single", "multiple", "conditional", "thread", "multi_thread", "branched"};
constexpr char kMark = '*';
constexpr std::string_view kAroundValue = " \t\r\n\"'[]{}.,`";

struct Shape {
  Kind kind;
  int64_t needles, hops, threads, branches;
  std::string direction;
};

/// What is asked for, and the pairs that answer it, in the order in which they are used.
struct Needles {
  struct Pair {
    std::string key, value;
    int64_t place;  // among all pairs
  };
  std::vector<Pair> pairs;
  std::vector<std::string> asked;   // keys that the question names
  std::vector<std::string> values;  // the answer
};

std::string quoted_list(const std::vector<std::string>& uuids) {
  return uuids.empty() ? "" : "\"" + join(uuids, "\", \"") + "\"";
}

class KvThreads final : public Task {
 public:
  KvThreads(std::string name, Shape shape) : Task(std::move(name)), shape_(std::move(shape)) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    const Rng start = rng(input, length, index);
    return fit_sample(*this, input, length, needed_pairs(), std::max(needed_pairs(), length),
                      [&](int64_t pairs) { return build(input, pairs, start); });
  }

  /// Share of the values that are right: in their places, or as a set for kind=conditional, where values too many
  /// count as wrong ones.
  Score score(const Sample& sample, const Answer& answer) const override {
    const auto wanted = sample.details["values"].get<std::vector<std::string>>();
    std::vector<std::string> given;
    for (const std::string_view part : split(first_line(answer.text), ',')) {
      given.emplace_back(strip(part, kAroundValue).substr(0, wanted[0].size()));
    }
    size_t right = 0, of = wanted.size();
    if (shape_.kind == Kind::kConditional) {
      std::ranges::sort(given);
      given.erase(std::unique(given.begin(), given.end()), given.end());
      for (const std::string& value : wanted) right += std::ranges::count(given, value);
      of = std::max(of, given.size());
    } else {
      for (size_t i = 0; i < std::min(of, given.size()); ++i) right += given[i] == wanted[i];
    }
    return {static_cast<double>(right) / static_cast<double>(of)};
  }

 private:
  int64_t chains() const { return shape_.kind == Kind::kMultiThread ? shape_.threads : 1; }
  int64_t dead_ends() const {
    return shape_.kind == Kind::kBranched ? (shape_.hops - 1) * (shape_.branches - 1) : 0;
  }
  int64_t needed_pairs() const {
    if (shape_.kind == Kind::kSingle) return 1;
    if (shape_.kind == Kind::kMultiple || shape_.kind == Kind::kConditional) return shape_.needles;
    return chains() * shape_.hops + dead_ends();
  }

  Needles lookups(Rng& rng, int64_t pairs) const {
    Needles needles;
    std::vector<int64_t> places = rng.distinct(pairs, needed_pairs());
    if (shape_.kind == Kind::kConditional) std::ranges::sort(places);
    for (const int64_t place : places) {
      std::string key = random_uuid(rng);
      if (shape_.kind == Kind::kConditional) key[rng.below(8)] = kMark;
      needles.pairs.push_back({key, random_uuid(rng), place});
      needles.asked.push_back(key);
      needles.values.push_back(needles.pairs.back().value);
    }
    return needles;
  }

  /// The value at place i of a chain is its key at i + 1. Branches are further pairs with the same key whose values
  /// lead nowhere; the last key has one value only, which makes that chain the longest.
  Needles chained(Rng& rng, int64_t pairs) const {
    std::vector<int64_t> places = rng.distinct(pairs, needed_pairs());
    Needles needles;
    for (int64_t thread = 0; thread < chains(); ++thread) {
      const auto first = places.begin() + thread * shape_.hops;
      if (shape_.direction == "forward") std::sort(first, first + shape_.hops);
      if (shape_.direction == "backward") std::sort(first, first + shape_.hops, std::greater<>());
      std::string key = random_uuid(rng);
      needles.asked.push_back(key);
      for (int64_t hop = 0; hop < shape_.hops; ++hop) {
        needles.pairs.push_back({key, random_uuid(rng), first[hop]});
        key = needles.pairs.back().value;
      }
      needles.values.push_back(key);
    }
    for (int64_t i = 0; i < dead_ends(); ++i) {
      needles.pairs.push_back(
          {needles.pairs[i % (shape_.hops - 1)].key, random_uuid(rng), places[shape_.hops + i]});
    }
    return needles;
  }

  std::string question(const Needles& needles) const {
    const std::string asked = quoted_list(needles.asked);
    switch (shape_.kind) {
      case Kind::kSingle:
        return concat("Question: Which value belongs to the key ", asked, "?\n");
      case Kind::kMultiple:
        return concat("Question: Which values belong to the keys ", asked,
                      "? Name them in the order of the keys.\n");
      case Kind::kConditional:
        return concat("Question: Which values have a key with the character ", kMark,
                      " in it? Name all of them.\n");
      case Kind::kThread:
        return concat("Question: Some values are keys of other pairs. Begin at the key ", asked,
                      ", take its value as the next key as long as there is such a key. Which value comes last?\n");
      case Kind::kMultiThread:
        return concat("Question: Some values are keys of other pairs. From each of the keys ", asked,
                      ", take the value as the next key as long as there is such a key. Which values come last? "
                      "Name them in the order of the keys.\n");
      default:
        return concat(
            "Question: Some values are keys of other pairs, and some keys occur more than once. From the key ",
            asked, ", taking a value as the next key, many paths begin. Which value ends the longest?\n");
    }
  }

  std::string lead(const Needles& needles) const {
    if (shape_.kind == Kind::kSingle) return "Answer: \"" + needles.asked[0] + "\":";
    return needles.values.size() == 1 ? "Answer: The last value is" : "Answer: The values are";
  }

  Sample build(const TaskInput& input, int64_t pairs, Rng rng) const {
    const bool lookup = shape_.kind <= Kind::kConditional;
    const double depth = rng.uniform();
    Needles needles = lookup ? lookups(rng, pairs) : chained(rng, pairs);
    if (shape_.kind == Kind::kSingle) {
      needles.pairs[0].place = static_cast<int64_t>(depth * static_cast<double>(pairs));
    }
    std::map<int64_t, const Needles::Pair*> at;
    for (const Needles::Pair& pair : needles.pairs) at[pair.place] = &pair;
    Sample sample;
    sample.context = "The JSON object below holds pairs of a key and a value.\n\n{\n";
    for (int64_t i = 0; i < pairs; ++i) {
      const auto needle = at.find(i);
      if (needle == at.end()) {
        sample.context += concat(" \"", random_uuid(rng), "\": \"", random_uuid(rng), "\",\n");
        continue;
      }
      const auto& [key, value, place] = *needle->second;
      sample.context += ' ';
      sample.evidence.push_back(append_part(sample.context, concat("\"", key, "\": \"", value, "\"")));
      sample.context += ",\n";
    }
    sample.context.erase(sample.context.size() - 2, 1);  // no comma behind the last pair
    sample.context += "}\n\n";
    sample.question = question(needles);
    sample.lead = lead(needles);
    sample.references = {quoted_list(needles.values)};
    sample.reserve = reserve_for(input, sample.references[0]);
    sample.stop = {"\n"};
    if (shape_.kind == Kind::kSingle) sample.depth = depth;
    sample.details["pairs"] = pairs;
    sample.details["values"] = needles.values;
    return sample;
  }

  Shape shape_;
};

std::string name_of(const Shape& shape) {
  const std::string name = concat("kv_threads/", kKinds[static_cast<size_t>(shape.kind)]);
  const std::string hops = concat("_", shape.hops, "_", shape.direction);
  switch (shape.kind) {
    case Kind::kSingle:
      return name;
    case Kind::kMultiple:
    case Kind::kConditional:
      return concat(name, "_", shape.needles);
    case Kind::kThread:
      return name + hops;
    case Kind::kMultiThread:
      return concat(name, "_", shape.threads, hops);
    default:
      return concat(name, "_", shape.branches, hops);
  }
}

}  // namespace

MethodInfo kv_threads_info() {
  using Type = Parameter::Type;
  return {
      .name = "kv_threads",
      .summary = "values of a JSON object of UUIDs: looked up, or followed as keys of further pairs",
      .paper = "Needle Threading: Can LLMs Follow Threads through Near-Million-Scale Haystacks?, 2024",
      .needs = "any model",
      .parameters = {
          {"kind", Type::kChoice, "thread", "what is asked for", {}, {}, {std::begin(kKinds), std::end(kKinds)}},
          {"hops", Type::kInt, "4", "pairs of a thread", 2, 100, {}},
          {"threads", Type::kInt, "3", "threads of kind=multi_thread", 2, 100, {}},
          {"branches", Type::kInt, "2", "values of a key of kind=branched", 2, 100, {}},
          {"needles", Type::kInt, "5", "values of kind=multiple and conditional", 2, 1000, {}},
          {"direction",
           Type::kChoice,
           "forward",
           "where a thread's next pair is",
           {},
           {},
           {"forward", "backward", "random"}}}};
}

TaskList make_kv_threads(const Values& values) {
  const auto kind = std::ranges::find(kKinds, values.string("kind")) - std::begin(kKinds);
  const Shape shape{static_cast<Kind>(kind),   values.integer("needles"),  values.integer("hops"),
                    values.integer("threads"), values.integer("branches"), values.string("direction")};
  return {std::make_shared<KvThreads>(name_of(shape), shape)};
}

}  // namespace fathom::eval
