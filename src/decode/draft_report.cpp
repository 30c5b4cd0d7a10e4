#include "decode/draft_report.h"

#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "base/format.h"

namespace fathom {

DraftReport::DraftReport(std::vector<std::string> sources) {
  for (std::string& name : sources) sources_.push_back({.name = std::move(name)});
}

void DraftReport::add(const Draft& draft, std::span<const int> accepted, int64_t emitted, double draft_seconds) {
  const auto source_of = [&](int node) -> size_t {
    return node < std::ssize(draft.sources) ? draft.sources[node] : 0;
  };
  for (int node = 0; node < draft.size(); ++node)
    if (source_of(node) >= sources_.size())
      fail("draft node ", node, " has source ", source_of(node), ", expected one of ", sources_.size());
  for (const int node : accepted)
    if (node < 0 || node >= draft.size())
      fail("accepted draft node ", node, ", expected one of ", draft.size(), " nodes");

  for (int node = 0; node < draft.size(); ++node)
    if (!draft.is_probe(node)) ++sources_[source_of(node)].proposed;
  for (const int node : accepted) ++sources_[source_of(node)].accepted;
  if (draft_seconds > 0 && std::isfinite(draft_seconds)) draft_seconds_ += draft_seconds;
  add_pass(emitted);
}

void DraftReport::add(int64_t proposed, int64_t accepted, int64_t emitted) {
  sources_.at(0).proposed += proposed;
  sources_[0].accepted += accepted;
  add_pass(emitted);
}

void DraftReport::add_pass(int64_t emitted) {
  ++forwards_;
  emitted_ += emitted;
  if (curve_.empty() || curve_.back().forwards == per_entry_) {
    if (curve_.size() == kMaxEntries) {
      for (size_t i = 0; i < kMaxEntries / 2; ++i) {
        const Entry &first = curve_[2 * i], &second = curve_[2 * i + 1];
        curve_[i] = {first.forwards + second.forwards, first.emitted + second.emitted};
      }
      curve_.resize(kMaxEntries / 2);
      per_entry_ *= 2;
    }
    curve_.emplace_back();
  }
  ++curve_.back().forwards;
  curve_.back().emitted += emitted;
}

int64_t DraftReport::proposed() const {
  int64_t sum = 0;
  for (const Source& source : sources_) sum += source.proposed;
  return sum;
}

int64_t DraftReport::accepted() const {
  int64_t sum = 0;
  for (const Source& source : sources_) sum += source.accepted;
  return sum;
}

double DraftReport::tokens_per_forward() const {
  return forwards_ == 0 ? 0 : static_cast<double>(emitted_) / static_cast<double>(forwards_);
}

std::string DraftReport::summary() const {
  char rate[32];
  std::snprintf(rate, sizeof rate, "%.2f", tokens_per_forward());
  std::string text = concat(emitted_, emitted_ == 1 ? " token in " : " tokens in ", forwards_,
                            forwards_ == 1 ? " pass, " : " passes, ", rate, " per pass");
  if (proposed() == 0) return text + "; no drafted tokens";
  std::vector<std::string> parts;
  for (const Source& source : sources_)
    if (source.proposed > 0) parts.push_back(concat(source.name, " ", source.accepted, " of ", source.proposed));
  return concat(text, "; accepted ", accepted(), " of ", proposed(), " drafted tokens (", comma_list(parts),
                "); drafting took ", format_seconds(draft_seconds_));
}

}  // namespace fathom
