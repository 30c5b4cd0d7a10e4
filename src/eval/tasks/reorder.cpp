// Events told out of order in a long text, to be put in the order in which they happened.
#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

using Order = std::vector<int64_t>;
constexpr int64_t kFirstYear = 1601, kLastYear = 1899;

constexpr std::string_view kDeeds[] = {"bought", "sold",      "found",   "lost",     "painted",
                                       "mended", "gave away", "hid",     "borrowed", "brought home",
                                       "broke",  "drew",      "cleaned", "buried"};

struct Event {
  std::string text;  // "Anna bought a copper kettle"
  int64_t year;
};

std::vector<Event> draw_events(Rng& rng, int64_t count) {
  const std::vector<int64_t> years = rng.distinct(kLastYear - kFirstYear + 1, count);
  const std::vector<int64_t> people = rng.distinct(std::ssize(first_names()), count);
  const std::vector<int64_t> things = rng.distinct(std::ssize(nouns()), count);
  std::vector<Event> events;
  for (int64_t i = 0; i < count; ++i) {
    events.push_back({concat(first_names()[people[i]], " ", rng.pick(kDeeds), " the ", rng.pick(adjectives()),
                             " ", nouns()[things[i]]),
                      kFirstYear + years[i]});
  }
  return events;
}

/// How far `given`, an order of the same things as `right`, is from it: mean distance of a thing from its place,
/// mean square of it, and the swaps that mend it. Anything else is as far as can be.
Json deviations(const Order& given, const Order& right) {
  const auto n = std::ssize(right);
  const auto things = static_cast<double>(n);
  double distance = std::floor(things * things / 2), square = things * (things * things - 1) / 3;
  int64_t cycles = 1;
  if (std::is_permutation(given.begin(), given.end(), right.begin(), right.end())) {
    distance = square = 0, cycles = 0;
    std::vector<bool> seen(n, false);
    const auto place = [&](int64_t i) { return std::ranges::find(right, given[i]) - right.begin(); };
    for (int64_t i = 0; i < n; ++i) {
      distance += static_cast<double>(std::abs(place(i) - i));
      square += static_cast<double>((place(i) - i) * (place(i) - i));
      cycles += !seen[i];
      for (int64_t at = i; !seen[at]; at = place(at)) seen[at] = true;
    }
  }
  return {{"location_deviation", distance / things},
          {"square_deviation", square / things},
          {"swap_deviation", n - cycles}};
}

class Reorder final : public Task {
 public:
  Reorder(std::string name, int64_t events) : Task(std::move(name)), events_(events) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    const std::vector<Event> events = draw_events(rng, events_);
    std::vector<double> places;
    for (int64_t i = 0; i < events_; ++i) places.push_back(rng.uniform());
    std::ranges::sort(places);
    Order listed = rng.distinct(events_, events_);
    return fit_prose_sample(*this, input, length, rng, 2 * events_, [&](std::string_view prose) {
      return build(input, events, listed, cut_prose(prose, places, 1));
    });
  }

  /// 1 for the right order; further numbers as LooGLE's, of which the least is the best.
  Score score(const Sample& sample, const Answer& answer) const override {
    const Order given = numbers_in(first_line(answer.text)), right = sample.details["order"].get<Order>();
    return {given == right ? 1.0 : 0.0, deviations(given, right)};
  }

 private:
  /// The events in the order in which they are told; listed: that in which the question names them.
  Sample build(const TaskInput& input, const std::vector<Event>& events, const Order& listed,
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
    Order right(events_);
    for (int64_t i = 0; i < events_; ++i) right[i] = i + 1;
    std::ranges::sort(right, {}, [&](int64_t number) { return events[listed[number - 1]].year; });
    std::vector<std::string> numbers;
    for (const int64_t number : right) numbers.push_back(std::to_string(number));
    sample.references = {join(numbers, ", ")};
    sample.lead = "Answer: The order is";
    sample.reserve = reserve_for(input, sample.references[0]);
    sample.stop = {"\n"};
    sample.details["order"] = right;
    return sample;
  }

  int64_t events_;
};

}  // namespace

MethodInfo reorder_info() {
  return {.name = "reorder",
          .summary = "dated events, told out of order in a long text, to be put in order",
          .paper = "LooGLE: Can Long-Context Language Models Understand Long Contexts?, 2023",
          .needs = "any model",
          .parameters = {{"events", Parameter::Type::kInt, "5", "to be put in order", 2, 50, {}}}};
}

TaskList make_reorder(const Values& values) {
  const int64_t events = values.integer("events");
  return {std::make_shared<Reorder>("reorder/" + std::to_string(events), events)};
}

}  // namespace fathom::eval
