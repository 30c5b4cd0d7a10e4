#include "train/training_page.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "eval/machine.h"
#include "eval/page.h"

namespace fathom::train {

std::string_view embedded_training_html();
std::string_view embedded_training_curves_js();

namespace {

constexpr size_t kMaxPoints = 600;  // of a curve; a screen shows fewer
constexpr std::array kMeans = {"loss", "gradient_norm", "learning_rate", "tokens_per_second"};

/// Returns at most kMaxPoints points. Each is the mean of neighbouring lines, at the step of the last of them.
Json thinned(const std::vector<const Json*>& steps) {
  Json points = Json::array();
  const size_t each = (steps.size() + kMaxPoints - 1) / kMaxPoints;
  for (size_t begin = 0; begin < steps.size(); begin += each) {
    const size_t end = std::min(begin + each, steps.size());
    Json point{{"step", (*steps[end - 1])["step"]}};
    for (const char* key : kMeans) {
      double sum = 0;
      for (size_t i = begin; i < end; ++i) sum += steps[i]->value(key, 0.0);
      point[key] = sum / static_cast<double>(end - begin);
    }
    points.push_back(std::move(point));
  }
  return points;
}

}  // namespace

std::string training_page(const Json& config, int64_t weights, const std::vector<RunLog::Line>& lines) {
  std::vector<const Json*> steps;
  Json heldout = Json::array();
  double seconds = 0;
  int64_t tokens = 0;
  for (const Json& line : lines) {
    seconds = line.value("seconds", seconds);
    tokens += line.value("tokens", int64_t{0});
    if (line.contains("loss")) steps.push_back(&line);
    if (line.contains("heldout")) heldout.push_back({{"step", line["step"]}, {"losses", line["heldout"]}});
  }
  const Json data{{"name", config["name"]},    {"steps", config["steps"]}, {"weights", weights},
                  {"tokens", tokens},          {"seconds", seconds},       {"machine", eval::processor_name()},
                  {"trained", thinned(steps)}, {"heldout", heldout},       {"config", config}};
  return eval::drawn_page(
      {"fathom train", embedded_training_html(), data, std::string(embedded_training_curves_js())});
}

}  // namespace fathom::train
