// Dated events in a long text, out of chronological order, to be sorted.
#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

using EventOrder = std::vector<int64_t>;
constexpr int64_t kFirstYear = 1601, kLastYear = 1899;

constexpr std::string_view kActions[] = {"bought", "sold",      "found",   "lost",     "painted",
                                         "mended", "gave away", "hid",     "borrowed", "brought home",
                                         "broke",  "drew",      "cleaned", "buried"};

struct DatedEvent {
  std::string text;  // "Anna bought a copper kettle"
  int64_t year;
};

std::vector<DatedEvent> draw_events(Rng& rng, int64_t count) {
  const std::vector<int64_t> years = rng.distinct(kLastYear - kFirstYear + 1, count);
  const std::vector<int64_t> people = rng.distinct(std::ssize(first_names()), count);
  const std::vector<int64_t> objects = rng.distinct(std::ssize(nouns()), count);
  std::vector<DatedEvent> events;
  for (int64_t i = 0; i < count; ++i) {
    const std::string_view adjective = rng.pick(adjectives()), action = rng.pick(kActions);
    events.push_back({concat(first_names()[people[i]], " ", action, " the ", adjective, " ", nouns()[objects[i]]),
                      kFirstYear + years[i]});
  }
  return events;
}

/// Returns the deviations of `answered` from `expected`: the mean distance of an item from its position, the mean
/// squared distance, and the number of swaps that sort it. Returns the largest possible values if `answered` is not
/// a permutation of `expected`.
Json deviations(const EventOrder& answered, const EventOrder& expected) {
  const auto n = std::ssize(expected);
  const auto count = static_cast<double>(n);
  double distance = std::floor(count * count / 2), square = count * (count * count - 1) / 3;
  int64_t cycles = 1;
  if (std::is_permutation(answered.begin(), answered.end(), expected.begin(), expected.end())) {
    distance = square = 0, cycles = 0;
    std::vector<bool> visited(n, false);
    const auto position = [&](int64_t i) { return std::ranges::find(expected, answered[i]) - expected.begin(); };
    for (int64_t i = 0; i < n; ++i) {
      distance += static_cast<double>(std::abs(position(i) - i));
      square += static_cast<double>((position(i) - i) * (position(i) - i));
      cycles += !visited[i];
      for (int64_t at = i; !visited[at]; at = position(at)) visited[at] = true;
    }
  }
  return {{"location_deviation", distance / count},
          {"square_deviation", square / count},
          {"swap_deviation", n - cycles}};
}

class Reorder final : public Task {
 public:
  Reorder(std::string name, int64_t events) : Task(std::move(name)), events_(events) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    const std::vector<DatedEvent> events = draw_events(rng, events_);
    std::vector<double> depths;
    for (int64_t i = 0; i < events_; ++i) depths.push_back(rng.uniform());
    std::ranges::sort(depths);
    EventOrder listed = rng.distinct(events_, events_);
    return fit_prose_sample(*this, input, length, rng, 2 * events_, [&](std::string_view prose) {
      return build(input, events, listed, cut_prose(prose, depths, 1));
    });
  }

  /// Scores 1 for the correct order. The details are LooGLE's deviations; lower is better.
  Score score(const Sample& sample, const Answer& answer) const override {
    const EventOrder answered = numbers_in(first_line(answer.text)),
                     expected = sample.details["order"].get<EventOrder>();
    return {answered == expected ? 1.0 : 0.0, deviations(answered, expected)};
  }

 private:
  /// events: in the order of the text; listed: the order in which the question lists them.
  Sample build(const TaskInput& input, const std::vector<DatedEvent>& events, const EventOrder& listed,
               const std::vector<std::string_view>& pieces) const {
    Sample sample;
    sample.context = "Some of what the text below tells is dated.\n\n";
    for (size_t i = 0; i < pieces.size(); ++i) {
      sample.context += pieces[i];
      if (!sample.context.ends_with('\n')) sample.context += i < events.size() ? " " : "\n";
      if (i == events.size()) break;
      sample.evidence.push_back(
          append_part(sample.context, concat("In ", events[i].year, " ", events[i].text, ".")));
      sample.context += ' ';
    }
    sample.question =
        "\nQuestion: In which order did these things happen, the earliest first? Give their numbers.\n";
    for (int64_t i = 0; i < events_; ++i) sample.question += concat(i + 1, ". ", events[listed[i]].text, "\n");
    EventOrder expected(events_);
    for (int64_t i = 0; i < events_; ++i) expected[i] = i + 1;
    std::ranges::sort(expected, {}, [&](int64_t number) { return events[listed[number - 1]].year; });
    std::vector<std::string> numbers;
    for (const int64_t number : expected) numbers.push_back(std::to_string(number));
    sample.references = {join(numbers, ", ")};
    sample.lead = "Answer: The order is";
    sample.reserve = reserve_for(input, sample.references[0]);
    sample.stop = {"\n"};
    sample.details["order"] = expected;
    return sample;
  }

  int64_t events_;
};

}  // namespace

MethodInfo reorder_info() {
  return {
      .name = "reorder",
      .summary = "put dated events, which the text mentions in another order, into chronological order",
      .paper = "LooGLE: Can Long-Context Language Models Understand Long Contexts?, 2023",
      .needs = "any model",
      .parameters = {{"events", Parameter::Type::kInt, "5", "events to put in order; more is harder", 2, 50, {}}}};
}

TaskList make_reorder(const Values& values) {
  const int64_t events = values.integer("events");
  return {std::make_shared<Reorder>("reorder/" + std::to_string(events), events)};
}

}  // namespace fathom::eval
