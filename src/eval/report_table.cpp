#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "base/error.h"
#include "base/format.h"
#include "base/utf8.h"
#include "eval/report.h"
#include "eval/run_view.h"

namespace fathom::eval {
namespace {

using Summary = RunView::Summary;

constexpr const char* kNothing = "–";
constexpr int kLeastWidth = 40;
constexpr int kGap = 2;     // blanks between columns
constexpr int kIndent = 2;  // of rows below the title of their group

/// Columns beside the method, from left to right.
enum Column { kScore, kInterval, kDifference, kPrefill, kDecode, kKeys, kCache, kSame, kKl, kColumns };
constexpr const char* kHeads[kColumns] = {"score", "95 %",  "vs first", "prefill/s", "decode/s",
                                          "keys",  "cache", "same",     "KL"};
// The order in which columns are given up.
constexpr Column kLeastFirst[] = {kPrefill, kKl, kSame, kKeys, kCache, kInterval, kDecode, kDifference};

struct Row {
  std::string method;
  std::string cells[kColumns];
};

struct RowGroup {
  std::string title;
  std::vector<Row> rows;
};

/// Columns on the terminal, taking one for each character.
int columns_of(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(),
                                        [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

/// Foreign text without what would move the cursor or is no UTF-8.
std::string printable(std::string_view text) {
  std::string clean;
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text.substr(at));
    const uint32_t code = length == 0 ? 0 : utf8_code_point(text.substr(at));
    const bool control = code < 0x20 || (code >= 0x7f && code < 0xa0);
    clean += control ? "?" : text.substr(at, length);
    at += std::max<size_t>(length, 1);
  }
  return clean;
}

/// `text`, valid UTF-8, in at most `width` columns: without its middle, since methods differ at both ends.
std::string fitted(const std::string& text, int width) {
  if (columns_of(text) <= width) return text;
  std::vector<std::string_view> characters;
  for (size_t at = 0; at < text.size(); at += characters.back().size()) {
    characters.push_back(std::string_view(text).substr(at, utf8_length(std::string_view(text).substr(at))));
  }
  const size_t tail = (width - 1) / 2, head = width - 1 - tail;
  std::string cut;
  for (size_t i = 0; i < head; ++i) cut += characters[i];
  cut += "…";
  for (size_t i = characters.size() - tail; i < characters.size(); ++i) cut += characters[i];
  return cut;
}

std::string blanks(int count) { return std::string(std::max(count, 0), ' '); }

std::string decimals(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, std::clamp(value, -1e15, 1e15));
  return text;
}

template <class Format>
std::string cell_of(const Summary& summary, const char* key, Format format) {
  const auto number = number_at(summary, key);
  return number ? format(*number) : kNothing;
}

/// Against the baseline's summary; a star where the intervals have nothing in common.
std::string difference_of(const Summary& summary, const Summary* exact) {
  if (exact == nullptr || exact == &summary) return "";
  const double difference = *number_at(summary, "score") - *number_at(*exact, "score");
  return concat(difference < 0 ? "−" : "+", decimals(std::abs(difference), 3),
                apart(interval_of(summary), interval_of(*exact)) ? "*" : " ");
}

Row row_of(const Summary& summary, const Summary* exact) {
  const auto percent = [](double share) {
    return decimals(share * 100, share > 0 && share < 0.0995 ? 1 : 0) + " %";
  };
  Row row;
  row.method = printable(text_at(summary, "method"));
  row.cells[kScore] = cell_of(summary, "score", [](double score) { return decimals(score, 3); });
  if (number_at(summary, "low") && number_at(summary, "high")) {
    const Interval interval = interval_of(summary);
    row.cells[kInterval] = concat(decimals(interval.low, 2), "–", decimals(interval.high, 2));
  } else {
    row.cells[kInterval] = kNothing;
  }
  row.cells[kDifference] = difference_of(summary, exact);
  row.cells[kPrefill] = cell_of(summary, "prefill_tokens_per_second", format_size);
  row.cells[kDecode] = cell_of(summary, "decode_tokens_per_second", format_size);
  row.cells[kKeys] = cell_of(summary, "keys_attended_share", percent);
  row.cells[kCache] = cell_of(summary, "cache_bytes", format_bytes);
  row.cells[kSame] = cell_of(summary, "same_answer_share", percent);
  row.cells[kKl] = cell_of(summary, "kl", [](double kl) { return decimals(kl, 4); });
  return row;
}

std::string length_text(int64_t tokens) {
  return tokens >= 1024 && tokens % 1024 == 0 ? format_size(static_cast<double>(tokens)) : concat(tokens);
}

std::string title_of(const RunView& view, const std::string& model, const std::string& what, int64_t length,
                     const Measure& measure) {
  std::string title = concat(printable(what), ", ", length_text(length), " tokens");
  if (!measure.higher_is_better) title += concat(" (", printable(measure.name), ", lower is better)");
  if (view.models.size() > 1 && !model.empty()) title += ", " + printable(model);
  return title;
}

/// A group for each model, task and length.
void add_tasks(const RunView& view, std::vector<RowGroup>& groups) {
  for (const std::string& model : view.models) {
    for (const std::string& task : view.tasks) {
      for (const int64_t length : view.lengths) {
        RowGroup group{title_of(view, model, task, length, view.measures.at(task)), {}};
        const Summary* exact = view.find(model, task, length, view.baseline());
        for (const std::string& method : view.methods) {
          if (const Summary* summary = view.find(model, task, length, method)) {
            group.rows.push_back(row_of(*summary, exact));
          }
        }
        if (!group.rows.empty()) groups.push_back(std::move(group));
      }
    }
  }
}

/// A group for each run of means of the same model, measure and length; the baseline, if it is there, comes first.
void add_means(const RunView& view, const std::vector<Summary>& means, const std::string& whose,
               std::vector<RowGroup>& groups) {
  const auto same_group = [](const Summary& a, const Summary& b) {
    return a["model"] == b["model"] && a["measure"] == b["measure"] &&
           a["higher_is_better"] == b["higher_is_better"] && a["length"] == b["length"];
  };
  const Summary* first = nullptr;
  for (const Summary& mean : means) {
    const int64_t tasks = mean["tasks"].get<int64_t>();
    if (tasks < 2) continue;
    if (first == nullptr || !same_group(*first, mean)) {
      first = &mean;
      const Measure measure{mean["measure"].get<std::string>(), mean["higher_is_better"].get<bool>()};
      groups.push_back({title_of(view, mean["model"].get<std::string>(), concat(whose, "mean of ", tasks, " tasks"),
                                 mean["length"].get<int64_t>(), measure),
                        {}});
    }
    groups.back().rows.push_back(row_of(mean, text_at(*first, "method") == view.baseline() ? first : nullptr));
  }
}

/// What is shown, and how wide.
struct Layout {
  int method = 0;
  int width[kColumns] = {};
  bool shown[kColumns] = {};

  int total() const {
    int sum = kIndent + method;
    for (int c = 0; c < kColumns; ++c) sum += shown[c] ? kGap + width[c] : 0;
    return sum;
  }
};

/// Gives up columns until the rest fits beside as much of the methods as tells them apart.
Layout lay_out(const std::vector<RowGroup>& groups, int width) {
  constexpr int kLeastMethod = 24;  // columns, where methods are that long
  Layout layout;
  int longest = columns_of("method");
  for (const RowGroup& group : groups) {
    for (const Row& row : group.rows) {
      longest = std::max(longest, columns_of(row.method));
      for (int c = 0; c < kColumns; ++c) {
        layout.width[c] = std::max({layout.width[c], columns_of(row.cells[c]), columns_of(kHeads[c])});
        layout.shown[c] |= !row.cells[c].empty() && row.cells[c] != kNothing;
      }
    }
  }
  layout.method = std::min(longest, std::max(kLeastMethod, width * 2 / 5));
  for (const Column column : kLeastFirst) {
    if (layout.total() > width) layout.shown[column] = false;
  }
  layout.method = std::min(longest, width - (layout.total() - layout.method));
  return layout;
}

std::string line_of(const Layout& layout, const std::string& method, const std::string* cells) {
  const std::string name = fitted(method, layout.method);
  std::string line = blanks(kIndent) + name + blanks(layout.method - columns_of(name));
  for (int c = 0; c < kColumns; ++c) {
    if (layout.shown[c]) line += blanks(kGap + layout.width[c] - columns_of(cells[c])) + cells[c];
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

/// A line for each method: the largest length at which RULER's mean is good enough.
std::string effective_text(const RunView& view, const std::vector<Summary>& means, int width) {
  const auto entries = effective_lengths(means);
  if (entries.empty()) return "";
  std::string text = "\n" + fitted("RULER, effective length (mean of 13 at least 0.856)", width) + "\n";
  int longest = 0;
  for (const Json& entry : entries) longest = std::max(longest, columns_of(printable(text_at(entry, "method"))));
  constexpr int kLength = 8;
  longest = std::min(longest, width - kIndent - kGap - kLength);
  for (const Json& entry : entries) {
    const std::string method = fitted(printable(text_at(entry, "method")), longest);
    std::string line = blanks(kIndent) + method + blanks(longest - columns_of(method) + kGap);
    line += entry["length"].is_null() ? "none" : length_text(entry["length"].get<int64_t>());
    if (view.models.size() > 1) line += "  " + printable(text_at(entry, "model"));
    text += fitted(line, width) + "\n";
  }
  return text;
}

}  // namespace

std::string terminal_table(const Json& run, int width) {
  width = std::max(width, kLeastWidth);
  const RunView view = view_run(run);
  const auto means = task_means(view), ruler = ruler_means(view);
  const bool only_ruler = !ruler.empty() && view.tasks.size() == ruler.front()["tasks"].get<size_t>();
  std::vector<RowGroup> groups;
  add_tasks(view, groups);
  add_means(view, means, only_ruler ? "RULER, " : "", groups);
  if (!only_ruler) add_means(view, ruler, "RULER, ", groups);
  if (groups.empty()) return "no results\n";

  const Layout layout = lay_out(groups, width);
  const std::vector<std::string> heads(std::begin(kHeads), std::end(kHeads));
  std::string table = line_of(layout, "method", heads.data());
  bool starred = false;
  for (const RowGroup& group : groups) {
    table += "\n" + fitted(group.title, width) + "\n";
    for (const Row& row : group.rows) {
      table += line_of(layout, row.method, row.cells);
      starred |= layout.shown[kDifference] && row.cells[kDifference].ends_with('*');
    }
  }
  table += effective_text(view, ruler, width);
  if (starred) table += "\n" + fitted("* the intervals have nothing in common", width) + "\n";
  return table;
}

}  // namespace fathom::eval
