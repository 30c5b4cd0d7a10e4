#include <algorithm>
#include <map>
#include <set>

#include "eval/metrics.h"

namespace fathom::eval {
namespace {

/// Returns the number of items that two bags share, with multiplicity.
int64_t shared(const std::vector<std::string_view>& a, const std::vector<std::string_view>& b) {
  std::map<std::string_view, int64_t> remaining;
  for (const std::string_view item : b) ++remaining[item];
  int64_t count = 0;
  for (const std::string_view item : a) {
    const auto found = remaining.find(item);
    if (found == remaining.end() || found->second == 0) continue;
    --found->second;
    ++count;
  }
  return count;
}

double bag_f1(const std::vector<std::string_view>& answer, const std::vector<std::string_view>& reference) {
  return overlap(static_cast<double>(shared(answer, reference)), static_cast<double>(answer.size()),
                 static_cast<double>(reference.size()))
      .f1;
}

}  // namespace

Overlap overlap(double matched, double answered, double expected) {
  if (matched <= 0 || answered <= 0 || expected <= 0) return {};
  const double precision = matched / answered;
  const double recall = matched / expected;
  return {precision, recall, 2 * precision * recall / (precision + recall)};
}

double qa_f1(std::string_view answer, std::string_view reference) {
  const std::string a = normalize_english(answer);
  const std::string b = normalize_english(reference);
  return bag_f1(split_words(a), split_words(b));
}

double qa_f1_chinese(std::string_view answer, std::string_view reference) {
  const std::string a = normalize_chinese(answer);
  const std::string b = normalize_chinese(reference);
  return bag_f1(characters(a), characters(b));
}

bool exact_match(std::string_view answer, std::string_view reference) {
  const std::string normal = normalize_english(answer);
  return !normal.empty() && normal == normalize_english(reference);
}

bool contains_text(std::string_view text, std::string_view part) {
  return !part.empty() && lower_case(text).find(lower_case(part)) != std::string::npos;
}

Overlap set_f1(const std::vector<std::string>& answer, const std::vector<std::string>& reference) {
  const std::set<std::string> a(answer.begin(), answer.end());
  const std::set<std::string> b(reference.begin(), reference.end());
  const auto matched = std::ranges::count_if(a, [&](const std::string& item) { return b.contains(item); });
  return overlap(static_cast<double>(matched), static_cast<double>(a.size()), static_cast<double>(b.size()));
}

std::vector<std::string> comma_items(std::string_view text) {
  std::vector<std::string> items;
  std::string item;
  const auto end_item = [&] {
    const std::string_view trimmed = trim(item);
    if (!trimmed.empty()) items.emplace_back(trimmed);
    item.clear();
  };
  for (const std::string_view c : characters(text)) {
    if (c == "," || c == "，") {
      end_item();
    } else {
      item += c;
    }
  }
  end_item();
  return items;
}

}  // namespace fathom::eval
