#include "eval/report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/utf8.h"
#include "eval/page.h"
#include "eval/run_view.h"

namespace fathom::eval {

std::string_view embedded_report_html();
std::string_view embedded_report_data_js();
std::string_view embedded_report_charts_js();
std::string_view embedded_report_lists_js();
std::string_view embedded_report_js();

namespace {

using SampleGroup = std::array<std::string, 3>;                            // model, task, method
using SampleKey = std::tuple<std::string, std::string, int64_t, int64_t>;  // model, task, length, sample

std::optional<int64_t> integer_at(const Json& object, std::string_view key) {
  const auto number = number_at(object, key);
  if (!number || std::abs(*number) >= 0x1p53) return std::nullopt;
  return static_cast<int64_t>(*number);
}

SampleGroup group_of(const Json& sample) {
  return {text_at(sample, "model"), text_at(sample, "task"), text_at(sample, "method")};
}

/// The depth bins of a task: one for each of its depths, or ten equal bins if there are too many depths.
class DepthBins {
 public:
  void add(double depth) { depths_.insert(depth); }

  std::array<double, 2> bin_of(double depth) const {
    constexpr size_t kMaxRows = 15;  // readable at a glance
    if (depths_.size() <= kMaxRows) return {depth, depth};
    const double tenth = std::clamp(std::floor(depth * 10), 0.0, 9.0);
    return {tenth / 10, (tenth + 1) / 10};
  }

 private:
  std::set<double> depths_;
};

/// Returns the cells of the heat maps: the mean score of the samples of a model, task, method and length in a depth
/// bin.
Json depth_cells(const Json& samples) {
  struct Cell {
    double sum = 0;
    int64_t n = 0;
  };
  std::map<std::string, DepthBins> bins;
  for (const Json& sample : samples.items()) {
    if (const auto depth = number_at(sample, "depth")) bins[text_at(sample, "task")].add(*depth);
  }
  std::map<std::tuple<SampleGroup, int64_t, std::array<double, 2>>, Cell> cells;
  for (const Json& sample : samples.items()) {
    const auto depth = number_at(sample, "depth"), score = number_at(sample, "score");
    const auto length = integer_at(sample, "length");
    if (!depth || !score || !length) continue;
    Cell& cell = cells[{group_of(sample), *length, bins[text_at(sample, "task")].bin_of(*depth)}];
    cell.sum += *score;
    ++cell.n;
  }
  Json list = Json::array();
  for (const auto& [key, cell] : cells) {
    const auto& [group, length, depth] = key;
    const double score = cell.sum / static_cast<double>(cell.n);
    const Interval interval = wilson_interval(std::clamp(score, 0.0, 1.0), cell.n);
    list.push_back({{"model", group[0]},
                    {"task", group[1]},
                    {"method", group[2]},
                    {"length", length},
                    {"from", depth[0]},
                    {"to", depth[1]},
                    {"n", cell.n},
                    {"score", score},
                    {"low", interval.low},
                    {"high", interval.high}});
  }
  return list;
}

/// Cuts a text to at most kMaxBytes bytes of whole characters, followed by "…".
std::string shortened(const std::string& text) {
  constexpr size_t kMaxBytes = 600;
  if (text.size() <= kMaxBytes) return text;
  const std::string_view start = std::string_view(text).substr(0, kMaxBytes);
  return concat(start.substr(0, start.size() - utf8_unfinished(start)), "…");
}

/// Returns the fields of a sample that the page shows.
Json answer_of(const Json& sample, const std::map<SampleKey, double>& baseline_scores) {
  constexpr size_t kMaxReferences = 10;
  Json answer;
  for (const char* key : {"model", "task", "length", "method", "sample", "score", "depth", "prompt_tokens"}) {
    if (sample.contains(key) && !sample[key].is_null()) answer[key] = sample[key];
  }
  answer["answer"] = shortened(text_at(sample, "answer"));
  answer["reference"] = Json::array();
  for (const Json& reference : items_at(sample, "reference").items()) {
    if (answer["reference"].size() == kMaxReferences) break;
    if (reference.is_string()) answer["reference"].push_back(shortened(reference.get<std::string>()));
  }
  const auto baseline =
      baseline_scores.find({text_at(sample, "model"), text_at(sample, "task"),
                            integer_at(sample, "length").value_or(-1), integer_at(sample, "sample").value_or(-1)});
  if (baseline != baseline_scores.end()) answer["baseline_score"] = baseline->second;
  return answer;
}

/// Returns the samples without a full score by model, task and method, each list with the worst first.
std::map<SampleGroup, std::vector<const Json*>> shortfalls(const RunView& view, const Json& samples) {
  std::map<SampleGroup, std::vector<const Json*>> groups;
  for (const Json& sample : samples.items()) {
    const auto score = number_at(sample, "score");
    const auto measure = view.measures.find(text_at(sample, "task"));
    const bool of_scores = measure == view.measures.end() || measure->second.higher_is_better;
    if (score && *score < 1 && of_scores && sample.contains("answer")) groups[group_of(sample)].push_back(&sample);
  }
  for (auto& [group, members] : groups) {
    std::stable_sort(members.begin(), members.end(), [](const Json* a, const Json* b) {
      return *number_at(*a, "score") < *number_at(*b, "score");
    });
  }
  return groups;
}

/// Returns {"total", "shown"}: the answers for the page, taken round-robin from all models, tasks and methods.
Json wrong_answers(const RunView& view, const Json& samples) {
  constexpr size_t kMaxAnswers = 2000;  // a few megabytes
  std::map<SampleKey, double> baseline_scores;
  for (const Json& sample : samples.items()) {
    const auto score = number_at(sample, "score");
    if (!score || text_at(sample, "method") != view.baseline()) continue;
    baseline_scores[{text_at(sample, "model"), text_at(sample, "task"), integer_at(sample, "length").value_or(-1),
                     integer_at(sample, "sample").value_or(-1)}] = *score;
  }
  const auto groups = shortfalls(view, samples);
  size_t total = 0, longest = 0;
  for (const auto& [group, members] : groups) {
    total += members.size();
    longest = std::max(longest, members.size());
  }
  Json shown = Json::array();
  for (size_t rank = 0; rank < longest && shown.size() < kMaxAnswers; ++rank) {
    for (const auto& [group, members] : groups) {
      if (rank < members.size() && shown.size() < kMaxAnswers)
        shown.push_back(answer_of(*members[rank], baseline_scores));
    }
  }
  return {{"total", total}, {"shown", std::move(shown)}};
}

/// Returns the data of the page: the run with samples reduced to the fields that the page shows.
Json page_data(const Json& run) {
  const RunView view = view_run(run);
  const Json& samples = items_at(run, "samples");
  const auto ruler = ruler_means(view);
  Json data = Json::object();
  if (run.is_object()) {
    for (const auto& [key, value] : run.fields()) {
      if (key != "samples") data[key] = value;
    }
  }
  data["order"] = {
      {"models", view.models}, {"tasks", view.tasks}, {"lengths", view.lengths}, {"methods", view.methods}};
  data["means"] = task_means(view);
  data["ruler"] = {{"means", ruler}, {"effective_lengths", effective_lengths(ruler)}};
  data["cells"] = depth_cells(samples);
  data["answers"] = wrong_answers(view, samples);
  return data;
}

}  // namespace

std::string html_report(const Json& run) {
  return drawn_page({"fathom eval", embedded_report_html(), page_data(run),
                     concat(embedded_report_data_js(), embedded_report_charts_js(), embedded_report_lists_js(),
                            embedded_report_js())});
}

}  // namespace fathom::eval
