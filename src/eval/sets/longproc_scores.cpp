#include "eval/sets/longproc_scores.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "eval/metrics.h"

namespace fathom::eval {
namespace {

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

std::optional<int64_t> integer(std::string_view text) {
  constexpr size_t kMaxDigits = 9;  // products fit into 64 bits
  text = trim(text);
  int64_t value = 0;
  if (text.size() > kMaxDigits) return std::nullopt;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || read.ec != std::errc() || read.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

/// A correct equation "a op b = c".
struct Equation {
  int64_t a, b, result;
};

std::optional<Equation> equation(std::string_view line) {
  const size_t equals = line.find('=');
  if (equals == std::string_view::npos) return std::nullopt;
  const std::string_view left = trim(line.substr(0, equals));
  const size_t sign = left.find_first_of("+-*/", 1);
  if (left.empty() || sign == std::string_view::npos) return std::nullopt;
  const auto a = integer(left.substr(0, sign));
  const auto b = integer(left.substr(sign + 1));
  const auto c = integer(line.substr(equals + 1));
  if (!a || !b || !c) return std::nullopt;
  bool correct = false;
  if (left[sign] == '+') correct = *a + *b == *c;
  if (left[sign] == '-') correct = *a - *b == *c;
  if (left[sign] == '*') correct = *a * *b == *c;
  if (left[sign] == '/') correct = *b != 0 && *b * *c == *a;
  if (!correct) return std::nullopt;
  return Equation{*a, *b, *c};
}

bool solves(std::string_view solution, std::vector<int64_t> numbers, int64_t target) {
  const std::vector<std::string_view> lines = lines_of(solution);
  if (numbers.empty() || lines.size() + 1 != numbers.size()) return false;
  for (const std::string_view line : lines) {
    const auto step = equation(line);
    if (!step) return false;
    for (const int64_t used : {step->a, step->b}) {
      const auto found = std::ranges::find(numbers, used);
      if (found == numbers.end()) return false;
      numbers.erase(found);
    }
    numbers.push_back(step->result);
  }
  return numbers.front() == target;
}

/// Returns the lines of the search in a countdown answer; empty if there are none.
std::vector<std::string_view> search_lines(std::string_view text) {
  constexpr std::string_view kHeader = "# Search Procedure";
  const size_t header = text.rfind(kHeader);
  if (header == std::string_view::npos) return {};
  text.remove_prefix(header + kHeader.size());
  return lines_of(trim(text.substr(0, text.find("Now we have found the target"))));
}

bool same_step(std::string_view answered, std::string_view expected) {
  if (answered == expected) return true;
  if (expected.find("|- Try") == std::string_view::npos) return false;
  const auto is_dropped = [](std::string_view line) {
    return line.find("drop this branch") != std::string_view::npos;
  };
  return answered.substr(0, answered.find('=')) == expected.substr(0, expected.find('=')) &&
         is_dropped(answered) == is_dropped(expected);
}

/// Returns the lines that begin with '-' in normalised form, without those that become empty.
std::vector<std::string> beliefs(std::string_view text) {
  static const std::set<std::string_view> kFillerWords{
      "a",  "an",  "the", "on",   "in",    "at",     "step",    "thinks",   "think",
      "is", "are", "of",  "know", "knows", "belief", "believe", "believes", "location"};
  std::vector<std::string> all;
  for (std::string_view line : lines_of(text)) {
    line = trim(line);
    if (!line.starts_with('-')) continue;
    std::string plain = normalize_english(line);
    for (size_t at = plain.find("’"); at != std::string::npos; at = plain.find("’")) plain.erase(at, 3);
    std::string belief;
    for (const std::string_view word : split_words(plain)) {
      if (!kFillerWords.contains(word)) belief.append(word).append(" ");
    }
    if (!belief.empty()) all.push_back(std::move(belief));
  }
  return all;
}

/// Returns the word at the beginning of `text`.
std::string_view first_word(std::string_view text) {
  size_t length = 0;
  for (const std::string_view c : characters(text)) {
    if (!is_word_character(c)) break;
    length += c.size();
  }
  return text.substr(0, length);
}

/// The last "Day 5: … from Helsinki to Barcelona" of a line.
struct Flight {
  int64_t day;
  std::string_view from, to;
};

std::optional<Flight> flight_of(std::string_view line) {
  constexpr std::string_view kFrom = "from ";
  constexpr std::string_view kTo = " to ";
  for (size_t at = line.rfind(kFrom); at != std::string_view::npos;
       at = at == 0 ? at - 1 : line.rfind(kFrom, at - 1)) {
    const std::string_view from = first_word(line.substr(at + kFrom.size()));
    const std::string_view rest = line.substr(at + kFrom.size() + from.size());
    const std::string_view to = rest.starts_with(kTo) ? first_word(rest.substr(kTo.size())) : std::string_view();
    const size_t day = line.substr(0, at).rfind("Day ");
    if (from.empty() || to.empty() || day == std::string_view::npos) continue;
    const std::string_view after_day = line.substr(day + 4, at - day - 4);
    const auto number = integer(after_day.substr(0, after_day.find_first_not_of("0123456789")));
    if (number) return Flight{*number, from, to};
  }
  return std::nullopt;
}

/// Returns the last day of the first range such as "3-7" of a line.
std::optional<int64_t> last_day_of(std::string_view line) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (size_t dash = line.find('-'); dash < line.size(); dash = line.find('-', dash + 1)) {
    if (dash == 0 || dash + 1 >= line.size() || !is_digit(line[dash - 1]) || !is_digit(line[dash + 1])) continue;
    const std::string_view after = line.substr(dash + 1);
    return integer(after.substr(0, after.find_first_not_of("0123456789")));
  }
  return std::nullopt;
}

struct Stay {
  std::string_view city;
  int64_t days;
};

/// Returns the stays in order. A stay lasts from the day of one flight to the day of the next, both included.
std::vector<Stay> stays_of(std::string_view plan) {
  std::vector<Flight> flights;
  std::optional<int64_t> last;
  for (const std::string_view line : lines_of(plan)) {
    if (const auto day = last_day_of(line)) last = day;
    if (const auto flight = flight_of(line)) flights.push_back(*flight);
  }
  if (flights.empty() || !last) return {};
  std::vector<Stay> stays;
  int64_t arrival = 1;
  std::string_view city = flights.front().from;
  for (const Flight& flight : flights) {
    stays.push_back({city, flight.day - arrival + 1});
    arrival = flight.day;
    city = flight.to;
  }
  stays.push_back({city, *last - arrival + 1});
  return stays;
}

using TsvRow = std::vector<std::string>;

TsvRow cells_of(std::string_view line) {
  TsvRow row;
  for (size_t begin = 0; begin <= line.size();) {
    const size_t end = std::min(line.find('\t', begin), line.size());
    std::string cell = normalize_english(line.substr(begin, end - begin));
    std::erase(cell, ' ');
    row.push_back(std::move(cell));
    begin = end + 1;
  }
  return row;
}

/// Returns the rows below the header. A row with a wrong number of cells gets "N/A" in all cells; if it is the last
/// row, it is left out.
std::vector<TsvRow> rows_of(std::string_view table) {
  const std::vector<std::string_view> lines = lines_of(trim(table));
  const size_t columns = cells_of(lines.front()).size();
  std::vector<TsvRow> rows;
  for (size_t i = 1; i < lines.size(); ++i) {
    TsvRow row = cells_of(lines[i]);
    if (row.size() == columns) {
      rows.push_back(std::move(row));
    } else if (i + 1 < lines.size()) {
      rows.emplace_back(columns, "na");
    }
  }
  return rows;
}

double share(size_t part, size_t whole) { return static_cast<double>(part) / static_cast<double>(whole); }

}  // namespace

std::string_view between_tags(std::string_view text, std::string_view tag) {
  const std::string open = "<" + std::string(tag) + ">";
  const size_t begin = text.find(open);
  const size_t end = text.find("</" + std::string(tag) + ">");
  if (begin == std::string_view::npos || end == std::string_view::npos || end < begin + open.size()) return {};
  return trim(text.substr(begin + open.size(), end - begin - open.size()));
}

ProcedureScore score_path(std::string_view answer, std::string_view route) {
  const std::string_view given = between_tags(answer, "Route");
  if (given.empty()) return {};
  if (given == trim(route)) return {1, 1};
  const std::vector<std::string_view> answered = lines_of(given);
  const std::vector<std::string_view> expected = lines_of(trim(route));
  size_t correct = 0;
  while (correct < answered.size() && correct < expected.size() && answered[correct] == expected[correct])
    ++correct;
  const bool ends_early = correct == std::min(answered.size(), expected.size());
  return {0, share(ends_early ? correct : correct + 1, expected.size())};
}

ProcedureScore score_countdown(std::string_view answer, std::vector<int64_t> numbers, int64_t target,
                               std::string_view procedure) {
  if (solves(between_tags(answer, "Solution"), std::move(numbers), target)) return {1, 1};
  const std::vector<std::string_view> answered = search_lines(answer);
  const std::vector<std::string_view> expected = search_lines(procedure);
  if (answered.empty() || expected.size() < 2 || answered.front() != expected.front()) return {};
  size_t correct = 1;
  while (correct < answered.size() && correct < expected.size() && same_step(answered[correct], expected[correct]))
    ++correct;
  return {0, share(correct - 1, expected.size() - 1)};
}

ProcedureScore score_tracking(std::string_view answer, std::string_view trace) {
  const std::vector<std::string> answered = beliefs(answer);
  const std::vector<std::string> expected = beliefs(trace);
  if (expected.empty()) return {};
  if (answered == expected) return {1, 1};
  size_t correct = 0;
  while (correct < answered.size() && correct < expected.size() && answered[correct] == expected[correct])
    ++correct;
  return {0, share(correct, expected.size())};
}

ProcedureScore score_travel(std::string_view answer, const std::vector<std::string>& cities,
                            const std::vector<int64_t>& days) {
  const std::vector<Stay> stays = stays_of(between_tags(answer, "Plan"));
  if (cities.empty() || cities.size() != days.size()) return {};
  size_t correct = 0;
  while (correct < stays.size() && correct < cities.size() && stays[correct].city == cities[correct] &&
         stays[correct].days == days[correct]) {
    ++correct;
  }
  return {correct == cities.size() ? 1.0 : 0.0, share(correct, cities.size())};
}

ProcedureScore score_table(std::string_view answer, std::string_view table) {
  constexpr std::string_view kBlock = "```tsv";
  if (const size_t begin = answer.find(kBlock); begin != std::string_view::npos) {
    answer.remove_prefix(begin + kBlock.size());
    answer = answer.substr(0, answer.rfind("```"));
  }
  const std::vector<TsvRow> answered = rows_of(answer);
  const std::vector<TsvRow> expected = rows_of(table);
  const std::set<TsvRow> answered_set(answered.begin(), answered.end());
  const std::set<TsvRow> expected_set(expected.begin(), expected.end());
  const auto correct =
      std::ranges::count_if(answered, [&](const TsvRow& row) { return expected_set.contains(row); });
  const auto found = std::ranges::count_if(expected, [&](const TsvRow& row) { return answered_set.contains(row); });
  if (correct == 0 || found == 0) return {};
  const double precision = share(correct, answered.size());
  const double recall = share(found, expected.size());
  return {2 * precision * recall / (precision + recall), recall};
}

}  // namespace fathom::eval
