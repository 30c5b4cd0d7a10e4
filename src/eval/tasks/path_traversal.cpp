// A journey along the one way that leads on from each town: little to read, much to write.
#include <algorithm>

#include "base/error.h"
#include "eval/fit.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"

namespace fathom::eval {
namespace {

constexpr std::string_view kMeans[] = {"train", "bus", "boat", "coach", "plane", "ferry", "tram", "sledge"};

constexpr int64_t kMostTier = 1 << 16;  // whose towns are a third of all that can be drawn

struct Way {
  std::string from, to;
  std::string_view means;
};

std::string draw_town(Rng& rng, FreshWords& fresh) {
  std::string town = fresh.draw(rng, 2);
  town[0] = static_cast<char>(town[0] - 'a' + 'A');
  return town;
}

/// A line a way; the tag before them is in the lead, the one behind them ends the answer.
std::string route_text(const std::vector<Way>& ways, int64_t hops) {
  std::string text;
  for (int64_t i = 0; i < hops; ++i) {
    text += concat("\nFrom ", ways[i].from, " to ", ways[i].to, " by ", ways[i].means, ".");
  }
  return text + "\n";
}

class PathTraversal final : public Task {
 public:
  PathTraversal(std::string name, int64_t tier) : Task(std::move(name)), tier_(tier) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    const Rng start = rng(input, length, index);
    return fit_sample(*this, input, length, 0, 0, [&](int64_t) { return build(input, start); });
  }

  /// 1 if all lines are right. partial: the share of the lines before the first wrong one.
  Score score(const Sample& sample, const Answer& answer) const override {
    const std::string text = answer.text.substr(0, answer.text.find("</Route>"));
    const std::vector<std::string_view> given = lines_of(text), right = lines_of(sample.references[0]);
    return {given == right ? 1.0 : 0.0, {{"partial", right_prefix(given, right)}}};
  }

 private:
  /// As many ways of a journey as can be told in `tier` tokens.
  std::vector<Way> draw_journey(const TaskInput& input, Rng& rng, FreshWords& fresh) const {
    std::vector<Way> ways(tier_ / 6);  // a line has more than six tokens
    std::string town = draw_town(rng, fresh);
    for (Way& way : ways) {
      way = {town, draw_town(rng, fresh), rng.pick(kMeans)};
      town = way.to;
    }
    const int64_t hops = largest_fit(
        std::ssize(ways), tier_, [&](int64_t units) { return input.count(route_text(ways, units) + "</Route>"); });
    ways.resize(std::max<int64_t>(2, hops));
    return ways;
  }

  /// As many ways again, one from the end of the journey and the others from towns that are not on it.
  static void add_strays(Rng& rng, FreshWords& fresh, std::vector<Way>& ways) {
    const int64_t hops = std::ssize(ways);
    std::vector<std::string> towns = {ways.back().to};
    while (std::ssize(towns) < hops) towns.push_back(draw_town(rng, fresh));
    for (const std::string& town : towns) {
      const int64_t other = rng.below(2 * hops);
      const std::string& to = other < hops ? ways[other].from : towns[other - hops];
      ways.push_back({town, to == town ? ways[0].from : to, rng.pick(kMeans)});
    }
  }

  Sample build(const TaskInput& input, Rng rng) const {
    FreshWords fresh;
    std::vector<Way> ways = draw_journey(input, rng, fresh);
    Sample sample;
    const std::string from = ways.front().from, to = ways.back().to;
    sample.references = {route_text(ways, std::ssize(ways))};
    sample.reserve = std::max(tier_ + 8, reserve_for(input, sample.references[0]));
    sample.details["hops"] = ways.size();
    std::vector<int64_t> order = rng.distinct(2 * std::ssize(ways), 2 * std::ssize(ways));
    const int64_t hops = std::ssize(ways);
    add_strays(rng, fresh, ways);
    sample.context = "From each of these towns one way leads on:\n\n";
    for (const int64_t i : order) {
      const TextSpan told = append_part(
          sample.context, concat("From ", ways[i].from, " you can go to ", ways[i].to, " by ", ways[i].means, "."));
      if (i < hops) sample.evidence.push_back(told);
      sample.context += '\n';
    }
    sample.question = concat("\nQuestion: How do you get from ", from, " to ", to,
                             "? Write the whole journey between <Route> and </Route>, a line for each way, as in: "
                             "From A to B by bus.\n");
    sample.lead = "Answer: <Route>";
    sample.stop = {"</Route>"};
    return sample;
  }

  int64_t tier_;
};

}  // namespace

MethodInfo path_traversal_info() {
  return {
      .name = "path_traversal",
      .summary = "a journey told way by way; the prompt is as short as the answer, so that length only bounds them",
      .paper = "LongProc: Benchmarking Long-Context Language Models on Long Procedural Generation, 2025",
      .needs = "any model",
      .parameters = {{"tier", Parameter::Type::kInt, "512", "most tokens of the answer", 128, kMostTier, {}}}};
}

TaskList make_path_traversal(const Values& values) {
  const int64_t tier = values.integer("tier");
  return {std::make_shared<PathTraversal>("path_traversal/" + std::to_string(tier), tier)};
}

}  // namespace fathom::eval
