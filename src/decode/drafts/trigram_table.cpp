#include "decode/drafts/trigram_table.h"

#include <algorithm>

namespace fathom {

size_t TrigramTable::find_slot(int32_t a, int32_t b) const {
  uint64_t h = (uint64_t{static_cast<uint32_t>(a)} << 32 | static_cast<uint32_t>(b)) * 0x9e3779b97f4a7c15u;
  h = (h ^ (h >> 32)) * 0xbf58476d1ce4e5b9u;
  for (size_t i = (h >> 20) & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
    const Slot& slot = slots_[i];
    if (slot.first < 0 || (slot.a == a && slot.b == b)) return i;
  }
}

void TrigramTable::find(int32_t a, int32_t b, std::vector<Successor>& successors) const {
  successors.clear();
  if (slots_.empty()) return;
  float sum = 0;
  for (int32_t i = slots_[find_slot(a, b)].first; i >= 0; i = entries_[i].next) {
    successors.push_back({entries_[i].token, entries_[i].weight});
    sum += entries_[i].weight;
  }
  for (Successor& successor : successors) successor.probability /= sum;
  std::ranges::sort(successors, [](const Successor& x, const Successor& y) {
    return x.probability != y.probability ? x.probability > y.probability : x.token < y.token;
  });
}

TrigramTable::Successor TrigramTable::draw(int32_t a, int32_t b, double uniform) const {
  Successor drawn{-1, 0};
  if (slots_.empty()) return drawn;
  const int32_t first = slots_[find_slot(a, b)].first;
  float sum = 0;
  for (int32_t i = first; i >= 0; i = entries_[i].next) sum += entries_[i].weight;
  double left = uniform * sum;
  for (int32_t i = first; i >= 0 && left >= 0; i = entries_[i].next) {
    drawn = {entries_[i].token, entries_[i].weight / sum};
    left -= entries_[i].weight;
  }
  return drawn;
}

void TrigramTable::add(int32_t a, int32_t b, int32_t c, float amount, float cap) {
  if (amount <= 0) return;
  if (!slots_.empty()) {
    int32_t lightest = -1;
    int count = 0;
    for (int32_t i = slots_[find_slot(a, b)].first; i >= 0; i = entries_[i].next, ++count) {
      Entry& entry = entries_[i];
      if (entry.token == c) {
        entry.weight = std::max(entry.weight, std::min(entry.weight + amount, cap));
        return;
      }
      if (lightest < 0 || entry.weight < entries_[lightest].weight) lightest = i;
    }
    if (count == kSuccessors) {
      entries_[lightest].token = c;
      entries_[lightest].weight = std::min(amount, cap);
      return;
    }
  }
  if (entries_.size() >= size_) halve();
  insert(a, b, c, std::min(amount, cap));
}

void TrigramTable::insert(int32_t a, int32_t b, int32_t c, float weight) {
  if (2 * (pairs_ + 1) > slots_.size()) grow();
  Slot& slot = slots_[find_slot(a, b)];
  if (slot.first < 0) ++pairs_;
  const int32_t next = slot.first;
  slot = {a, b, static_cast<int32_t>(entries_.size())};
  entries_.push_back({c, weight, next});
}

void TrigramTable::grow() {
  std::vector<Slot> old(std::max<size_t>(64, 2 * slots_.size()));
  old.swap(slots_);
  for (const Slot& slot : old)
    if (slot.first >= 0) slots_[find_slot(slot.a, slot.b)] = slot;
}

void TrigramTable::halve() {
  // Keeps the heavier half; of equal weights the entries that were added last.
  std::vector<int32_t> order(entries_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  const auto middle = order.begin() + std::ssize(order) / 2;
  std::ranges::nth_element(order, middle, [&](int32_t x, int32_t y) {
    return entries_[x].weight != entries_[y].weight ? entries_[x].weight > entries_[y].weight : x > y;
  });
  std::vector<uint8_t> kept(entries_.size());
  std::for_each(order.begin(), middle, [&](int32_t i) { kept[i] = 1; });
  std::vector<Slot> slots;
  std::vector<Entry> entries;
  slots.swap(slots_);
  entries.swap(entries_);
  pairs_ = 0;
  for (const Slot& slot : slots) {
    for (int32_t i = slot.first; i >= 0; i = entries[i].next)
      if (kept[i]) insert(slot.a, slot.b, entries[i].token, entries[i].weight);
  }
}

void TrigramTable::normalise() {
  for (const Slot& slot : slots_) {
    float sum = 0;
    for (int32_t i = slot.first; i >= 0; i = entries_[i].next) sum += entries_[i].weight;
    for (int32_t i = slot.first; i >= 0; i = entries_[i].next) entries_[i].weight /= sum;
  }
}

}  // namespace fathom
