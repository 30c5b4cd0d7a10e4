// Two people, two objects, two rooms: the state of the rooms and the beliefs of each person, step by step.
#include <algorithm>
#include <array>

#include "base/error.h"
#include "eval/fit.h"
#include "eval/metrics.h"
#include "eval/tasks/parts.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

constexpr std::string_view kRooms[] = {"kitchen", "garden", "cellar", "attic", "hall", "barn", "study", "workshop"};
constexpr std::string_view kContainers[] = {"box", "basket", "chest", "drawer", "jar", "bag", "crate", "cupboard"};
constexpr std::string_view kObjects[] = {"key", "coin", "letter", "ring", "apple", "spoon", "map", "whistle"};

struct TomWorld {
  std::array<std::string_view, 2> people, rooms, objects;
  std::array<std::string_view, 4> containers;    // two in each room
  std::array<int64_t, 2> room;                   // of each person
  std::array<int64_t, 2> container;              // of each object
  std::array<std::array<int64_t, 2>, 2> belief;  // of each person: a container for each object

  bool sees(int64_t person, int64_t object) const { return container[object] / 2 == room[person]; }
  void update_beliefs() {
    for (int64_t person = 0; person < 2; ++person) {
      for (int64_t object = 0; object < 2; ++object) {
        if (sees(person, object)) belief[person][object] = container[object];
      }
    }
  }
};

template <size_t n, class Words>
void draw_names(Rng& rng, const Words& from, std::array<std::string_view, n>& names) {
  const std::vector<int64_t> drawn = rng.distinct(std::ssize(from), n);
  for (size_t i = 0; i < n; ++i) names[i] = from[drawn[i]];
}

TomWorld draw_world(Rng& rng) {
  TomWorld world{};
  draw_names(rng, first_names(), world.people);
  draw_names(rng, kRooms, world.rooms);
  draw_names(rng, kObjects, world.objects);
  draw_names(rng, kContainers, world.containers);
  for (int64_t& room : world.room) room = rng.below(2);
  for (int64_t& container : world.container) container = rng.below(4);
  world.belief = {world.container, world.container};
  return world;
}

/// Draws a step: a person goes to the other room, or moves an object of their room within the room or to the other
/// one. Returns its description.
std::string act(Rng& rng, TomWorld& world) {
  const int64_t person = rng.below(2), object = rng.below(2), chance = rng.below(10);
  const std::string_view name = world.people[person], object_name = world.objects[object];
  const bool visible_here = world.sees(person, object);
  int64_t& container = world.container[object];
  if (visible_here && chance < 5) {
    container ^= 1;
    return concat(name, " moves the ", object_name, " to the ", world.containers[container], ".");
  }
  world.room[person] ^= 1;
  const std::string_view room = world.rooms[world.room[person]];
  if (visible_here && chance < 7) {
    container = 2 * world.room[person] + rng.below(2);
    return concat(name, " takes the ", object_name, " to the ", room, " and puts it into the ",
                  world.containers[container], ".");
  }
  return concat(name, " goes to the ", room, ".");
}

std::string objects_at(const TomWorld& world, const std::array<int64_t, 2>& containers) {
  return concat(world.objects[0], " ", world.containers[containers[0]], ", ", world.objects[1], " ",
                world.containers[containers[1]]);
}

std::string notes_on(const TomWorld& world) {
  std::string text = concat("- places: ", world.people[0], " ", world.rooms[world.room[0]], ", ", world.people[1],
                            " ", world.rooms[world.room[1]], ", ", objects_at(world, world.container), "\n");
  for (int64_t person = 0; person < 2; ++person) {
    std::vector<std::string_view> visible;
    for (int64_t object = 0; object < 2; ++object) {
      if (world.sees(person, object)) visible.push_back(world.objects[object]);
    }
    text += concat("- ", world.people[person], " sees: ", visible.empty() ? "nothing" : join(visible, ", "),
                   "; believes: ", objects_at(world, world.belief[person]), "\n");
  }
  return text;
}

struct TomStory {
  std::string steps_text, notes;  // steps_text: the story; notes: the expected answer
};

TomStory make_story(TomWorld world, int64_t steps, Rng rng) {
  TomStory story{.steps_text = "", .notes = "\n"};
  for (int64_t i = 1; i <= steps; ++i) {
    story.steps_text += concat("Step ", i, ": ", act(rng, world), "\n");
    world.update_beliefs();
    story.notes += concat("Step ", i, "\n", notes_on(world));
  }
  story.notes += "End";
  return story;
}

/// Returns the lines that begin with "-", in lower case.
std::vector<std::string> notes_of(std::string_view text) {
  std::vector<std::string> notes;
  for (const std::string_view line : lines_of(text)) {
    if (line.starts_with('-')) notes.push_back(lower_case(line));
  }
  return notes;
}

class TomTracking final : public Task {
 public:
  TomTracking(std::string name, int64_t tier) : Task(std::move(name)), tier_(tier) {}

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    const TomWorld world = draw_world(rng);
    const int64_t max_steps = tier_ / 16;  // the notes on a step have more than 16 tokens
    const int64_t steps = std::max<int64_t>(1, largest_fit(max_steps, tier_, [&](int64_t units) {
                                              return input.count(make_story(world, units, rng).notes);
                                            }));
    return fit_sample(*this, input, length, steps, steps,
                      [&](int64_t) { return build(input, world, steps, make_story(world, steps, rng)); });
  }

  /// Scores 1 if all notes are correct. partial: the share of them before the first wrong one.
  Score score(const Sample& sample, const Answer& answer) const override {
    const std::vector<std::string> answered = notes_of(answer.text), expected = notes_of(sample.references[0]);
    const auto prefix = correct_prefix({answered.begin(), answered.end()}, {expected.begin(), expected.end()});
    return {answered == expected ? 1.0 : 0.0, {{"partial", prefix}}};
  }

 private:
  Sample build(const TaskInput& input, const TomWorld& world, int64_t steps, const TomStory& story) const {
    Sample sample;
    sample.context =
        "A person sees the things that are in the same room, and which container they are in. Of any other thing "
        "a person believes that it is where they saw it last, even when they saw it carried away. In the "
        "beginning both know where everything is.\n\n";
    for (int64_t room = 0; room < 2; ++room) {
      sample.context += concat("In the ", world.rooms[room], " there are a ", world.containers[2 * room], " and a ",
                               world.containers[2 * room + 1], ".\n");
    }
    for (int64_t i = 0; i < 2; ++i) {
      sample.context += concat(world.people[i], " is in the ", world.rooms[world.room[i]], ". The ",
                               world.objects[i], " is in the ", world.containers[world.container[i]], ".\n");
    }
    sample.context += '\n';
    sample.evidence = {append_part(sample.context, story.steps_text)};
    sample.question =
        "\nQuestion: How do things stand after each step? Write its number and three lines, as in this "
        "example of another story, and \"End\" when there are no more steps:\nStep 1\n- places: Olga loft, "
        "Ivan porch, pen tin, cup shelf\n- Olga sees: pen, cup; believes: pen tin, cup shelf\n- Ivan sees: "
        "nothing; believes: pen tin, cup desk\n";
    sample.lead = "Answer:";
    sample.references = {story.notes};
    sample.reserve = std::max(tier_ + 8, reserve_for(input, story.notes));
    sample.stop = {"End"};
    sample.details["steps"] = steps;
    return sample;
  }

  int64_t tier_;
};

}  // namespace

MethodInfo tom_tracking_info() {
  return {.name = "tom_tracking",
          .summary =
              "after each step, write down where everyone is and what everyone believes; --lengths only limits the "
              "answer",
          .paper = "LongProc: Benchmarking Long-Context Language Models on Long Procedural Generation, 2025",
          .needs = "any model",
          .parameters = {{"tier",
                          Parameter::Type::kInt,
                          "512",
                          "maximum number of tokens of the answer; more is harder",
                          128,
                          1 << 16,
                          {}}}};
}

TaskList make_tom_tracking(const Values& values) {
  const int64_t tier = values.integer("tier");
  return {std::make_shared<TomTracking>("tom_tracking/" + std::to_string(tier), tier)};
}

}  // namespace fathom::eval
