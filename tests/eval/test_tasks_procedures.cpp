// Tasks whose answer is a long trace, which the tests recompute from the prompt alone.
#include <map>

#include "task_bench.h"
#include "text_match.h"

namespace fathom::eval {
namespace {

double partial(const Task& task, const Sample& sample, const std::string& text) {
  return task.score(sample, {text, {}}).details["partial"].get<double>();
}

/// Returns the lines of the reference with an error in line `wrong` (from 0).
std::string with_error(const std::string& reference, size_t wrong) {
  std::string text;
  size_t i = 0;
  for (const std::string& line : lines_of_text(reference)) {
    if (line.empty()) continue;
    text += (i++ == wrong ? line + "?" : line) + "\n";
  }
  return text;
}

TEST(PathTraversal, FollowingTheLegsGivesTheReference) {
  const auto task = task_of("path_traversal:tier=512");
  for (int64_t index = 0; index < 20; ++index) {
    const Sample sample = task->make(bytes_input(), 4000, index);
    std::map<std::string, Strings> legs;
    for (const std::string& line : lines_of_text(sample.context)) {
      const Strings leg = groups(line, "From (\\w+) you can go to (\\w+) by (\\w+)\\.");
      if (leg.empty()) continue;
      EXPECT_FALSE(legs.contains(leg[0])) << "one leg leaves each town";
      legs[leg[0]] = leg;
    }
    const Strings ends = groups(sample.question, "from (\\w+) to (\\w+)\\?");
    std::string route, at = ends.at(0);
    int64_t hops = 0;
    for (; at != ends[1]; at = legs.at(at)[1], ++hops) {
      route += "From " + at + " to " + legs[at][1] + " by " + legs[at][2] + ".\n";
      ASSERT_LT(hops, 1000);
    }
    EXPECT_EQ(value_of(*task, sample, route), 1);
    EXPECT_EQ(hops, sample.details["hops"]);
    EXPECT_EQ(std::ssize(legs), 2 * hops);
    EXPECT_EQ(std::ssize(sample.evidence), hops);
    EXPECT_LE(bytes_input().count(route), 512);
    EXPECT_GE(bytes_input().count(route), 480);
  }
}

TEST(PathTraversal, PartialIsTheShareBeforeTheFirstWrongLine) {
  const auto task = task_of("path_traversal:tier=512");
  const Sample sample = task->make(bytes_input(), 4000, 0);
  const double hops = sample.details["hops"].get<double>();
  for (const size_t wrong : {0u, 3u, 7u}) {
    const std::string text = with_error(sample.references[0], wrong);
    EXPECT_DOUBLE_EQ(partial(*task, sample, text), static_cast<double>(wrong) / hops);
    EXPECT_EQ(value_of(*task, sample, text), 0);
  }
  EXPECT_EQ(value_of(*task, sample, sample.references[0] + "</Route> and more"), 1);
  EXPECT_EQ(value_of(*task, sample, sample.references[0] + "From A to B by bus."), 0);
}

TEST(Countdown, EveryTraceEndsInACorrectSolutionAndFitsItsTier) {
  for (const int64_t tier : {512, 2048}) {
    const auto task = task_of("countdown:tier=" + std::to_string(tier));
    for (int64_t index = 0; index < 10; ++index) {
      const Sample sample = task->make(bytes_input(), 4000, index);
      const std::string& answer = sample.references[0];
      EXPECT_EQ(value_of(*task, sample, answer), 1);
      EXPECT_EQ(partial(*task, sample, answer), 1);
      EXPECT_LE(bytes_input().count(answer), tier);
      EXPECT_GE(bytes_input().count(answer), tier / 2 - 4);
      const auto target = std::to_string(sample.details["target"].get<int64_t>());
      EXPECT_NE(answer.find("= " + target + ", reached\n<Solution>"), std::string::npos);
      EXPECT_EQ(groups(sample.question, "Target: (\\d+)").at(0), target);
    }
  }
}

/// Each try follows a pick of its numbers and is correct.
TEST(Countdown, TracesTryThePickedNumbers) {
  const Sample sample = task_of("countdown:tier=2k")->make(bytes_input(), 4000, 1);
  std::map<size_t, Strings> picked;  // by indentation
  int64_t tries = 0;
  for (const std::string& line : lines_of_text(sample.references[0])) {
    const size_t indent = line.find_first_not_of(' ');
    const Strings pick = groups(line, "Pick (\\d+) and (\\d+), left");
    if (!pick.empty()) picked[indent] = pick;
    const Strings tried = groups(line, "Try (\\d+) ([-+*/]) (\\d+) = (\\d+)");
    if (tried.empty()) continue;
    ++tries;
    EXPECT_EQ(picked[indent], (Strings{tried[0], tried[2]}));
    const int64_t a = std::stoll(tried[0]), b = std::stoll(tried[2]), c = std::stoll(tried[3]);
    EXPECT_GE(a, b);
    const std::map<std::string, bool> correct = {
        {"+", a + b == c}, {"-", a - b == c}, {"*", a * b == c}, {"/", b * c == a}};
    EXPECT_TRUE(correct.at(tried[1])) << line;
  }
  EXPECT_GT(tries, 50);
}

TEST(Countdown, SolutionsAreCheckedByArithmetic) {
  const auto task = task_of("countdown");
  Sample sample;
  sample.references = {"\nPick 9 and 7, left: 4, 2\n<Solution>\n"};
  sample.details["numbers"] = {9, 7, 4, 2};
  sample.details["target"] = 24;
  const auto value = [&](const std::string& text) {
    return value_of(*task, sample, "<Solution>\n" + text + "\n</Solution>");
  };
  EXPECT_EQ(value("9 - 7 = 2\n2 + 4 = 6\n6 * 2 = 12"), 0) << "the wrong target";
  EXPECT_EQ(value("9 + 7 = 16\n4 * 2 = 8\n16 + 8 = 24"), 1);
  EXPECT_EQ(value("4 * 2 = 8\n9 + 7 = 16\n8 + 16 = 24"), 1);
  EXPECT_EQ(value("9 + 7 = 16\n4 * 2 = 9\n16 + 8 = 24"), 0);
  EXPECT_EQ(value("9 + 7 = 16\n16 + 8 = 24"), 0);
  EXPECT_EQ(value("9 + 9 = 18\n4 + 2 = 6\n18 + 6 = 24"), 0) << "a number twice";
  EXPECT_EQ(value("9 + 7 = 16\n4 * 2 = 8\n16 + 8 = 24\n1 + 1 = 2"), 0);
  EXPECT_EQ(value("16 8 24\n\n"), 0);
}

TEST(Countdown, PartialIsTheShareBeforeTheFirstWrongLine) {
  const auto task = task_of("countdown");
  const Sample sample = task->make(bytes_input(), 4000, 0);
  const std::string trace = sample.references[0].substr(0, sample.references[0].find("<Solution>"));
  const auto lines = static_cast<double>(lines_of_text(trace).size() - 1);  // the first line is empty
  EXPECT_DOUBLE_EQ(partial(*task, sample, with_error(trace, 5)), 5 / lines);
}

/// Reads the story of a sample and tracks the locations and beliefs.
class StoryTracker {
 public:
  explicit StoryTracker(const Sample& sample) {
    for (const std::string& line : lines_of_text(sample.context)) read(line);
  }
  std::string notes;

 private:
  void read(const std::string& line) {
    if (const Strings room = groups(line, "^In the (\\w+) there are a (\\w+) and a (\\w+)\\."); !room.empty()) {
      room_of_[room[1]] = room_of_[room[2]] = room[0];
      rooms_.push_back(room[0]);
    } else if (const Strings start = groups(line, "^(\\w+) is in the (\\w+)\\. The (\\w+) is in the (\\w+)\\.");
               !start.empty()) {
      people_.push_back(start[0]);
      objects_.push_back(start[2]);
      location_[start[0]] = start[1];
      location_[start[2]] = start[3];
    } else if (const Strings step = groups(line, "^Step (\\d+): (\\w+) (.*)"); !step.empty()) {
      if (step[0] == "1") begin();
      act(step[1], step[2]);
      write_notes(step[0]);
    }
  }
  void begin() {
    for (const std::string& person : people_) {
      for (const std::string& object : objects_) belief_[person][object] = location_[object];
    }
  }
  void act(const std::string& person, const std::string& rest) {
    if (const Strings moved = groups(rest, "^moves the (\\w+) to the (\\w+)\\."); !moved.empty()) {
      EXPECT_EQ(room_of_[location_[moved[0]]], location_[person]) << "only objects in the room are moved";
      location_[moved[0]] = moved[1];
    } else if (const Strings taken = groups(rest, "^takes the (\\w+) to the (\\w+) and puts it into the (\\w+)\\.");
               !taken.empty()) {
      EXPECT_EQ(room_of_[location_[taken[0]]], location_[person]);
      location_[person] = taken[1];
      location_[taken[0]] = taken[2];
      EXPECT_EQ(room_of_[taken[2]], taken[1]);
    } else {
      location_[person] = groups(rest, "^goes to the (\\w+)\\.").at(0);
    }
  }
  void write_notes(const std::string& number) {
    notes += "Step " + number + "\n- places: " + people_[0] + " " + location_[people_[0]] + ", " + people_[1] +
             " " + location_[people_[1]] + ", " + objects_[0] + " " + location_[objects_[0]] + ", " + objects_[1] +
             " " + location_[objects_[1]] + "\n";
    for (const std::string& person : people_) {
      std::string visible, believed;
      for (const std::string& object : objects_) {
        if (room_of_[location_[object]] == location_[person]) {
          belief_[person][object] = location_[object];
          visible += (visible.empty() ? "" : ", ") + object;
        }
        believed += (believed.empty() ? "" : ", ") + object + " " + belief_[person][object];
      }
      notes +=
          "- " + person + " sees: " + (visible.empty() ? "nothing" : visible) + "; believes: " + believed + "\n";
    }
  }

  Strings people_, objects_, rooms_;
  std::map<std::string, std::string> room_of_, location_;
  std::map<std::string, std::map<std::string, std::string>> belief_;
};

TEST(TomTracking, AnIndependentSimulationGivesTheReference) {
  const auto task = task_of("tom_tracking:tier=1k");
  bool false_beliefs = false;
  for (int64_t index = 0; index < 20; ++index) {
    const Sample sample = task->make(bytes_input(), 4000, index);
    const StoryTracker tracker(sample);
    EXPECT_EQ("\n" + tracker.notes + "End", sample.references[0]);
    EXPECT_EQ(value_of(*task, sample, tracker.notes), 1);
    EXPECT_LE(bytes_input().count(sample.references[0]), 1024);
    EXPECT_GE(bytes_input().count(sample.references[0]), 920);
    const Strings last = lines_of_text(tracker.notes);
    const Strings first = groups(last[last.size() - 2], "believes: (.*)"),
                  second = groups(last.back(), "believes: (.*)");
    false_beliefs |= first != second;
  }
  EXPECT_TRUE(false_beliefs) << "beliefs differ in some samples";
}

TEST(TomTracking, PartialIsTheShareBeforeTheFirstWrongLine) {
  const auto task = task_of("tom_tracking:tier=512");
  const Sample sample = task->make(bytes_input(), 4000, 0);
  const double lines = 3 * sample.details["steps"].get<double>();
  EXPECT_DOUBLE_EQ(partial(*task, sample, with_error(sample.references[0], 5)),
                   3 / lines);  // line 5 is the first note of step 2
  EXPECT_DOUBLE_EQ(partial(*task, sample, with_error(sample.references[0], 6)), 4 / lines);
  EXPECT_EQ(partial(*task, sample, "- nothing"), 0);
}

}  // namespace
}  // namespace fathom::eval
