#include "decode/constraints/fm_index.h"

#include <algorithm>
#include <mutex>
#include <sdsl/suffix_arrays.hpp>

#include "base/error.h"

namespace fathom {
namespace {

// Symbols of the index: 0 is the end of the text (added by SDSL), 1 the end of a passage, then the token ids.
constexpr uint64_t kPassageEnd = 1;
constexpr uint64_t kFirstToken = 2;
constexpr int32_t kTokenLimit = 1 << 24;  // the index holds one bit per id up to the largest one

}  // namespace

struct FmIndex::Arrays {
  // every 4th suffix array entry is stored, so that finding a position takes 1.5 steps on average; inverse entries
  // are not used
  sdsl::csa_wt_int<sdsl::wt_int<>, 4, 1 << 20> csa;
};

FmIndex::FmIndex(std::span<const std::vector<int32_t>> passages) {
  int64_t length = 0;
  int32_t largest = 0;
  for (const std::vector<int32_t>& passage : passages) {
    begin_.push_back(length);
    length += std::ssize(passage) + 1;
    for (const int32_t token : passage) {
      if (token < 0 || token >= kTokenLimit)
        fail("an index of tokens needs ids from 0 to ", kTokenLimit - 1, ", found ", token);
      largest = std::max(largest, token);
    }
  }
  tokens_ = length - std::ssize(passages);
  if (length == 0) return;
  sdsl::int_vector<> reversed(
      static_cast<uint64_t>(length), kPassageEnd,
      static_cast<uint8_t>(sdsl::bits::hi(kFirstToken + static_cast<uint64_t>(largest)) + 1));
  auto at = static_cast<uint64_t>(length);
  for (const std::vector<int32_t>& passage : passages) {
    for (const int32_t token : passage) reversed[--at] = kFirstToken + static_cast<uint64_t>(token);
    --at;
  }
  auto arrays = std::make_unique<Arrays>();
  {
    static std::mutex mutex;  // SDSL counts its temporary files in a global variable
    const std::lock_guard lock(mutex);
    sdsl::construct_im(arrays->csa, reversed, 0);
  }
  rows_ = static_cast<int64_t>(arrays->csa.size());
  arrays_ = std::move(arrays);
}

FmIndex::~FmIndex() = default;
FmIndex::FmIndex(FmIndex&&) noexcept = default;
FmIndex& FmIndex::operator=(FmIndex&&) noexcept = default;

FmIndex::Range FmIndex::append(Range range, int32_t token) const {
  if (range.count() <= 0 || token < 0) return {};
  uint64_t first = 0, last = 0;
  const uint64_t count =
      sdsl::backward_search(arrays_->csa, static_cast<uint64_t>(range.begin), static_cast<uint64_t>(range.end - 1),
                            kFirstToken + static_cast<uint64_t>(token), first, last);
  if (count == 0) return {};
  return {static_cast<int64_t>(first), static_cast<int64_t>(last) + 1};
}

FmIndex::Range FmIndex::find(std::span<const int32_t> ngram) const {
  Range range = all();
  for (const int32_t token : ngram) range = append(range, token);
  return range;
}

std::vector<FmIndex::Successor> FmIndex::successors(Range range) const {
  if (range.count() <= 0) return {};
  const auto& csa = arrays_->csa;
  const auto most = std::min(static_cast<uint64_t>(range.count()), static_cast<uint64_t>(csa.sigma));
  std::vector<uint64_t> symbols(most), before(most), after(most);  // occurrences up to both ends of the range
  uint64_t found = 0;
  sdsl::interval_symbols(csa.wavelet_tree, static_cast<uint64_t>(range.begin), static_cast<uint64_t>(range.end),
                         found, symbols, before, after);
  std::vector<Successor> successors;
  successors.reserve(found);
  for (uint64_t i = 0; i < found; ++i) {
    if (symbols[i] < kFirstToken) continue;
    const uint64_t first = csa.C[csa.char2comp[symbols[i]]];
    successors.push_back({static_cast<int32_t>(symbols[i] - kFirstToken),
                          {static_cast<int64_t>(first + before[i]), static_cast<int64_t>(first + after[i])}});
  }
  return successors;
}

std::vector<FmIndex::Occurrence> FmIndex::locate(Range range, int64_t length) const {
  std::vector<Occurrence> occurrences;
  occurrences.reserve(static_cast<size_t>(std::max<int64_t>(range.count(), 0)));
  for (int64_t row = range.begin; row < range.end; ++row) {
    // the reversed text has rows_ − 1 positions; the n-gram's last token comes first in it
    const auto last = static_cast<int64_t>(arrays_->csa[static_cast<uint64_t>(row)]);
    const int64_t begin = rows_ - 1 - last - length;
    const auto passage = std::ranges::upper_bound(begin_, begin) - begin_.begin() - 1;
    occurrences.push_back({passage, begin - begin_[static_cast<size_t>(passage)]});
  }
  return occurrences;
}

}  // namespace fathom
