// A journey in which each town has only one connection to the next town. The input is short and the answer is long.
#include <algorithm>

#include "base/error.h"
#include "eval/fit.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"

namespace fathom::eval {
namespace {

constexpr std::string_view kMeans[] = {"train", "bus", "boat", "coach", "plane", "ferry", "tram", "sledge"};

constexpr int64_t kMaxTier = 1 << 16;  // its towns are a third of all possible names

struct RouteLeg {
  std::string from, to;
  std::string_view means;
};

std::string draw_town(Rng& rng, FreshWords& fresh) {
  std::string town = fresh.draw(rng, 2);
  town[0] = static_cast<char>(town[0] - 'a' + 'A');
  return town;
}

/// Returns one line per leg. The opening tag is in the lead; the closing tag ends the answer.
std::string route_text(const std::vector<RouteLeg>& legs, int64_t hops) {
  std::string text;
  for (int64_t i = 0; i < hops; ++i) {
    text += concat("\nFrom ", legs[i].from, " to ", legs[i].to, " by ", legs[i].means, ".");
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

  /// Scores 1 if all lines are correct. partial: the share of the lines before the first wrong one.
  Score score(const Sample& sample, const Answer& answer) const override {
    const std::string text = answer.text.substr(0, answer.text.find("</Route>"));
    const std::vector<std::string_view> answered = lines_of(text), expected = lines_of(sample.references[0]);
    return {answered == expected ? 1.0 : 0.0, {{"partial", correct_prefix(answered, expected)}}};
  }

 private:
  /// Draws a journey of as many legs as fit into `tier` tokens.
  std::vector<RouteLeg> draw_journey(const TaskInput& input, Rng& rng, FreshWords& fresh) const {
    std::vector<RouteLeg> legs(tier_ / 6);  // a line has more than six tokens
    std::string town = draw_town(rng, fresh);
    for (RouteLeg& leg : legs) {
      leg = {town, draw_town(rng, fresh), rng.pick(kMeans)};
      town = leg.to;
    }
    const int64_t hops = largest_fit(
        std::ssize(legs), tier_, [&](int64_t units) { return input.count(route_text(legs, units) + "</Route>"); });
    legs.resize(std::max<int64_t>(2, hops));
    return legs;
  }

  /// Adds one distractor leg per leg of the journey: one from its last town, the others from towns that are not on
  /// it.
  static void add_distractors(Rng& rng, FreshWords& fresh, std::vector<RouteLeg>& legs) {
    const int64_t hops = std::ssize(legs);
    std::vector<std::string> towns = {legs.back().to};
    while (std::ssize(towns) < hops) towns.push_back(draw_town(rng, fresh));
    for (const std::string& town : towns) {
      const int64_t other = rng.below(2 * hops);
      const std::string& to = other < hops ? legs[other].from : towns[other - hops];
      legs.push_back({town, to == town ? legs[0].from : to, rng.pick(kMeans)});
    }
  }

  Sample build(const TaskInput& input, Rng rng) const {
    FreshWords fresh;
    std::vector<RouteLeg> legs = draw_journey(input, rng, fresh);
    Sample sample;
    const std::string from = legs.front().from, to = legs.back().to;
    sample.references = {route_text(legs, std::ssize(legs))};
    sample.reserve = std::max(tier_ + 8, reserve_for(input, sample.references[0]));
    sample.details["hops"] = legs.size();
    std::vector<int64_t> order = rng.distinct(2 * std::ssize(legs), 2 * std::ssize(legs));
    const int64_t hops = std::ssize(legs);
    add_distractors(rng, fresh, legs);
    sample.context = "From each of these towns one way leads on:\n\n";
    for (const int64_t i : order) {
      const TextSpan span = append_part(
          sample.context, concat("From ", legs[i].from, " you can go to ", legs[i].to, " by ", legs[i].means, "."));
      if (i < hops) sample.evidence.push_back(span);
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
  return {.name = "path_traversal",
          .summary = "write a journey from its separate legs; the answer is long; --lengths only limits it",
          .paper = "LongProc: Benchmarking Long-Context Language Models on Long Procedural Generation, 2025",
          .needs = "any model",
          .parameters = {{"tier",
                          Parameter::Type::kInt,
                          "512",
                          "maximum number of tokens of the answer; more is harder",
                          128,
                          kMaxTier,
                          {}}}};
}

TaskList make_path_traversal(const Values& values) {
  const int64_t tier = values.integer("tier");
  return {std::make_shared<PathTraversal>("path_traversal/" + std::to_string(tier), tier)};
}

}  // namespace fathom::eval
