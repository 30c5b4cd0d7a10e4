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

constexpr const char* kNothing = "–";
constexpr int kMinWidth = 40;
constexpr int kGap = 2;     // spaces between columns
constexpr int kIndent = 2;  // indent of the rows of a group

/// Columns to the right of the method.
enum TableColumn {
  kScore,
  kInterval,
  kDifference,
  kPrefill,
  kDecode,
  kPerPass,
  kKeys,
  kCache,
  kSame,
  kKl,
  kColumns
};
constexpr const char* kTitles[kColumns] = {"score",       "95 %", "vs baseline", "prefill/s", "decode/s",
                                           "tokens/pass", "keys", "cache",       "same",      "KL"};
// Columns in the order in which they are removed if the table is too wide.
constexpr TableColumn kRemovalOrder[] = {kPrefill,  kKl,     kSame,    kKeys,      kCache,
                                         kInterval, kDecode, kPerPass, kDifference};

struct TableRow {
  std::string method;
  std::string cells[kColumns];
};

struct TableGroup {
  std::string title;
  std::vector<TableRow> rows;
};

/// Returns the width on the terminal, with one column per character.
int columns_of(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(),
                                        [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

/// Replaces control characters and invalid UTF-8 by '?', so that foreign text cannot move the cursor.
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

/// Shortens `text` (valid UTF-8) to at most `width` columns. Removes the middle, because methods differ at both
/// ends.
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

std::string spaces(int count) { return std::string(std::max(count, 0), ' '); }

std::string decimals(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, std::clamp(value, -1e15, 1e15));
  return text;
}

template <class Format>
std::string cell_of(const RunSummary& summary, const char* key, Format format) {
  const auto number = number_at(summary, key);
  return number ? format(*number) : kNothing;
}

/// Returns the difference to the baseline's score, with a star if the intervals do not overlap.
std::string difference_of(const RunSummary& summary, const RunSummary* baseline) {
  if (baseline == nullptr || baseline == &summary) return "";
  const double difference = *number_at(summary, "score") - *number_at(*baseline, "score");
  return concat(difference < 0 ? "−" : "+", decimals(std::abs(difference), 3),
                disjoint(interval_of(summary), interval_of(*baseline)) ? "*" : " ");
}

TableRow row_of(const RunSummary& summary, const RunSummary* baseline) {
  const auto percent = [](double share) {
    return decimals(share * 100, share > 0 && share < 0.0995 ? 1 : 0) + " %";
  };
  TableRow row;
  row.method = printable(text_at(summary, "method"));
  row.cells[kScore] = cell_of(summary, "score", [](double score) { return decimals(score, 3); });
  if (number_at(summary, "low") && number_at(summary, "high")) {
    const Interval interval = interval_of(summary);
    row.cells[kInterval] = concat(decimals(interval.low, 2), "–", decimals(interval.high, 2));
  } else {
    row.cells[kInterval] = kNothing;
  }
  row.cells[kDifference] = difference_of(summary, baseline);
  row.cells[kPrefill] = cell_of(summary, "prefill_tokens_per_second", format_size);
  row.cells[kDecode] = cell_of(summary, "decode_tokens_per_second", format_size);
  row.cells[kPerPass] = cell_of(summary, "tokens_per_forward", [](double tokens) { return decimals(tokens, 2); });
  row.cells[kKeys] = cell_of(summary, "keys_attended_share", percent);
  row.cells[kCache] = cell_of(summary, "cache_bytes", format_bytes);
  row.cells[kSame] = cell_of(summary, "same_answer_share", percent);
  row.cells[kKl] = cell_of(summary, "kl", [](double kl) { return decimals(kl, 4); });
  return row;
}

std::string length_text(int64_t tokens) {
  return tokens >= 1024 && tokens % 1024 == 0 ? format_size(static_cast<double>(tokens)) : concat(tokens);
}

std::string title_of(const RunView& view, const std::string& model, const std::string& subject, int64_t length,
                     const Measure& measure) {
  std::string title = concat(printable(subject), ", ", length_text(length), " tokens");
  if (!measure.higher_is_better) title += concat(" (", printable(measure.name), ", lower is better)");
  if (view.models.size() > 1 && !model.empty()) title += ", " + printable(model);
  return title;
}

/// Adds a group for each model, task and length.
void add_tasks(const RunView& view, std::vector<TableGroup>& groups) {
  for (const std::string& model : view.models) {
    for (const std::string& task : view.tasks) {
      for (const int64_t length : view.lengths) {
        TableGroup group{title_of(view, model, task, length, view.measures.at(task)), {}};
        const RunSummary* baseline = view.find(model, task, length, view.baseline());
        for (const std::string& method : view.methods) {
          if (const RunSummary* summary = view.find(model, task, length, method)) {
            group.rows.push_back(row_of(*summary, baseline));
          }
        }
        if (!group.rows.empty()) groups.push_back(std::move(group));
      }
    }
  }
}

/// Adds a group for each sequence of means of the same model, measure and length. The baseline, if present, comes
/// first.
void add_means(const RunView& view, const std::vector<RunSummary>& means, const std::string& prefix,
               std::vector<TableGroup>& groups) {
  const auto same_group = [](const RunSummary& a, const RunSummary& b) {
    return a["model"] == b["model"] && a["measure"] == b["measure"] &&
           a["higher_is_better"] == b["higher_is_better"] && a["length"] == b["length"];
  };
  const RunSummary* first = nullptr;
  for (const RunSummary& mean : means) {
    const int64_t tasks = mean["tasks"].get<int64_t>();
    if (tasks < 2) continue;
    if (first == nullptr || !same_group(*first, mean)) {
      first = &mean;
      const Measure measure{mean["measure"].get<std::string>(), mean["higher_is_better"].get<bool>()};
      groups.push_back(
          {title_of(view, mean["model"].get<std::string>(), concat(prefix, "mean of ", tasks, " tasks"),
                    mean["length"].get<int64_t>(), measure),
           {}});
    }
    groups.back().rows.push_back(row_of(mean, text_at(*first, "method") == view.baseline() ? first : nullptr));
  }
}

/// The visible columns and their widths.
struct TableLayout {
  int method = 0;
  int width[kColumns] = {};
  bool shown[kColumns] = {};

  int total() const {
    int sum = kIndent + method;
    for (int c = 0; c < kColumns; ++c) sum += shown[c] ? kGap + width[c] : 0;
    return sum;
  }
};

/// Removes columns until the rest fits next to enough of the method names to distinguish them.
TableLayout lay_out(const std::vector<TableGroup>& groups, int width) {
  constexpr int kMinMethodWidth = 24;  // minimum width of the method column, if the names are that long
  TableLayout layout;
  int longest = columns_of("method");
  for (const TableGroup& group : groups) {
    for (const TableRow& row : group.rows) {
      longest = std::max(longest, columns_of(row.method));
      for (int c = 0; c < kColumns; ++c) {
        layout.width[c] = std::max({layout.width[c], columns_of(row.cells[c]), columns_of(kTitles[c])});
        layout.shown[c] |= !row.cells[c].empty() && row.cells[c] != kNothing;
      }
    }
  }
  layout.method = std::min(longest, std::max(kMinMethodWidth, width * 2 / 5));
  for (const TableColumn column : kRemovalOrder) {
    if (layout.total() > width) layout.shown[column] = false;
  }
  layout.method = std::min(longest, width - (layout.total() - layout.method));
  return layout;
}

std::string line_of(const TableLayout& layout, const std::string& method, const std::string* cells) {
  const std::string name = fitted(method, layout.method);
  std::string line = spaces(kIndent) + name + spaces(layout.method - columns_of(name));
  for (int c = 0; c < kColumns; ++c) {
    if (layout.shown[c]) line += spaces(kGap + layout.width[c] - columns_of(cells[c])) + cells[c];
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

/// Returns a line per method with the largest length at which RULER's mean reaches the threshold.
std::string effective_text(const RunView& view, const std::vector<RunSummary>& means, int width) {
  const auto entries = effective_lengths(means);
  if (entries.empty()) return "";
  std::string text = "\n" + fitted("RULER, effective length (mean of 13 tasks at least 0.856)", width) + "\n";
  int longest = 0;
  for (const Json& entry : entries) longest = std::max(longest, columns_of(printable(text_at(entry, "method"))));
  constexpr int kLength = 8;
  longest = std::min(longest, width - kIndent - kGap - kLength);
  for (const Json& entry : entries) {
    const std::string method = fitted(printable(text_at(entry, "method")), longest);
    std::string line = spaces(kIndent) + method + spaces(longest - columns_of(method) + kGap);
    line += entry["length"].is_null() ? "none" : length_text(entry["length"].get<int64_t>());
    if (view.models.size() > 1) line += "  " + printable(text_at(entry, "model"));
    text += fitted(line, width) + "\n";
  }
  return text;
}

}  // namespace

std::string terminal_table(const Json& run, int width) {
  width = std::max(width, kMinWidth);
  const RunView view = view_run(run);
  const auto means = task_means(view), ruler = ruler_means(view);
  const bool only_ruler = !ruler.empty() && view.tasks.size() == ruler.front()["tasks"].get<size_t>();
  std::vector<TableGroup> groups;
  add_tasks(view, groups);
  add_means(view, means, only_ruler ? "RULER, " : "", groups);
  if (!only_ruler) add_means(view, ruler, "RULER, ", groups);
  if (groups.empty()) return "no results\n";

  const TableLayout layout = lay_out(groups, width);
  const std::vector<std::string> titles(std::begin(kTitles), std::end(kTitles));
  std::string table = line_of(layout, "method", titles.data());
  bool has_star = false;
  for (const TableGroup& group : groups) {
    table += "\n" + fitted(group.title, width) + "\n";
    for (const TableRow& row : group.rows) {
      table += line_of(layout, row.method, row.cells);
      has_star |= layout.shown[kDifference] && row.cells[kDifference].ends_with('*');
    }
  }
  table += effective_text(view, ruler, width);
  if (has_star) table += "\n" + fitted("* the intervals do not overlap", width) + "\n";
  return table;
}

}  // namespace fathom::eval
