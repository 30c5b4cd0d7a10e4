#include "decode/constraints/fm_index.h"

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <utility>

#include "base/error.h"

namespace fathom {
namespace {

// Symbols of the index: 0 is the end of the text, 1 the end of a passage, then the distinct tokens, ascending.
constexpr int32_t kTextEnd = 0;
constexpr int32_t kPassageEnd = 1;
constexpr int32_t kFirstToken = 2;

constexpr int64_t kMaxLength = INT32_MAX - 1;  // the end of the text takes one more position

// --- Suffix array: SA-IS (Two Efficient Algorithms for Linear Time Suffix Array Construction, 2011). A suffix has
// type S if it is less than the one that begins at the next position, otherwise type L; it is LMS if it has type S
// and the one before it type L. A bucket is the range of the suffix array of the suffixes with the same first
// symbol: those of type L come first.

using IndexedText = std::span<const int32_t>;  // its last symbol is 0, and no other
using Positions = std::span<int32_t>;

constexpr int32_t kNone = -1;

/// Sets the end of the bucket of each symbol.
void set_bucket_ends(IndexedText text, Positions ends) {
  std::ranges::fill(ends, 0);
  for (const int32_t symbol : text) ++ends[symbol];
  int32_t end = 0;
  for (int32_t& bucket : ends) bucket = end += bucket;
}

/// Sets the begin of the bucket of each symbol.
void set_bucket_begins(IndexedText text, Positions begins) {
  set_bucket_ends(text, begins);
  std::shift_right(begins.begin(), begins.end(), 1);
  begins[0] = 0;
}

/// Calls `visit` with the position of each LMS suffix, from the last one, which is the last position, to the first.
template <class Visit>
void for_each_lms(IndexedText text, Visit visit) {
  bool type_s = true;
  for (auto i = static_cast<int32_t>(text.size()) - 2; i >= 0; --i) {
    const bool next_s = type_s;
    type_s = text[i] < text[i + 1] || (text[i] == text[i + 1] && next_s);
    if (next_s && !type_s) visit(i + 1);
  }
}

/// Sorts all suffixes by induction from the LMS suffixes, which are at the ends of their buckets; the other entries
/// of `suffixes` are kNone. Sets `buckets` to the begin of the suffixes of type S of each bucket, except that of
/// symbol 0.
void induce(IndexedText text, Positions suffixes, Positions buckets) {
  const auto length = static_cast<int32_t>(text.size());
  set_bucket_begins(text, buckets);
  for (int32_t i = 0; i < length; ++i) {
    const int32_t next = suffixes[i];
    if (next <= 0) continue;
    const int32_t symbol = text[next - 1];
    if (symbol >= text[next]) suffixes[buckets[symbol]++] = next - 1;
  }
  set_bucket_ends(text, buckets);
  for (int32_t i = length - 1; i >= 0; --i) {
    const int32_t next = suffixes[i];
    if (next <= 0) continue;
    const int32_t symbol = text[next - 1];
    if (symbol < text[next] || (symbol == text[next] && buckets[symbol] <= i))
      suffixes[--buckets[symbol]] = next - 1;
  }
}

/// Sorts the LMS suffixes by their symbols up to the next LMS suffix. Returns their number; they are the first
/// entries.
int32_t sort_lms_substrings(IndexedText text, Positions suffixes, int32_t symbols) {
  std::vector<int32_t> buckets(static_cast<size_t>(symbols));
  set_bucket_ends(text, buckets);
  std::ranges::fill(suffixes, kNone);
  for_each_lms(text, [&](int32_t at) { suffixes[--buckets[text[at]]] = at; });
  induce(text, suffixes, buckets);
  int32_t count = 1;  // the end of the text stays first
  for (int32_t i = 1; i < std::ssize(text); ++i) {
    const int32_t at = suffixes[i];
    if (at > 0 && buckets[text[at]] <= i && text[at - 1] > text[at]) suffixes[count++] = at;
  }
  return count;
}

/// Numbers the sorted LMS substrings; equal ones get the same number. Writes the numbers, in the order of the text,
/// to the last `count` entries. Returns how many numbers there are.
int32_t name_lms_substrings(IndexedText text, Positions suffixes, int32_t count) {
  const Positions names = suffixes.subspan(count);  // by position / 2: LMS suffixes are not adjacent
  std::ranges::fill(names, kNone);
  auto next = static_cast<int32_t>(text.size()) - 1;
  for_each_lms(text, [&](int32_t at) {
    names[at / 2] = next - at + 1;  // the length of the substring
    next = at;
  });
  int32_t different = 0;
  IndexedText previous;
  for (const int32_t at : suffixes.first(count)) {
    const IndexedText substring = text.subspan(at, names[at / 2]);
    different += !std::ranges::equal(substring, previous);
    names[at / 2] = different - 1;
    previous = substring;
  }
  auto to = names.end();
  for (auto from = names.end(); from != names.begin();)
    if (*--from != kNone) *--to = *from;
  return different;
}

/// Returns the suffix array of a text of at least 2 symbols below `symbols` in `suffixes`, which has its size.
void sort_suffixes(IndexedText text, Positions suffixes, int32_t symbols) {
  const int32_t count = sort_lms_substrings(text, suffixes, symbols);
  const int32_t names = name_lms_substrings(text, suffixes, count);
  const Positions sorted = suffixes.first(count), reduced = suffixes.last(count);
  if (names == count) {
    for (int32_t i = 0; i < count; ++i) sorted[reduced[i]] = i;
  } else {
    sort_suffixes(reduced, sorted, names);
  }
  auto to = reduced.end();
  for_each_lms(text, [&](int32_t at) { *--to = at; });
  for (int32_t& at : sorted) at = reduced[at];

  std::vector<int32_t> buckets(static_cast<size_t>(symbols));
  set_bucket_ends(text, buckets);
  std::ranges::fill(suffixes.subspan(count), kNone);
  for (int32_t i = count - 1; i >= 0; --i) {
    const int32_t at = std::exchange(suffixes[i], kNone);
    suffixes[--buckets[text[at]]] = at;
  }
  induce(text, suffixes, buckets);
}

// --- Wavelet matrix (The Wavelet Matrix, 2012).

/// Bits with their rank: one 64-bit count per 512 bits.
class RankBits {
 public:
  RankBits() = default;
  explicit RankBits(int64_t size) : words_((static_cast<size_t>(size) / 512 + 1) * 8) {}

  bool operator[](int64_t i) const { return (words_[i >> 6] >> (i & 63)) & 1; }
  void set(int64_t i, bool bit) { words_[i >> 6] |= static_cast<uint64_t>(bit) << (i & 63); }
  /// Counts the bits, after the last of them is set.
  void count() {
    counts_.resize(words_.size() / 8);
    uint64_t total = 0;
    for (size_t block = 0; block < counts_.size(); ++block) {
      uint64_t inner = 0, within = 0;
      for (int word = 0; word < 8; ++word) {
        if (word > 0 && word % 2 == 0) inner |= within << (9 * (word / 2 - 1));
        within += static_cast<uint64_t>(std::popcount(words_[block * 8 + word]));
      }
      counts_[block] = total << 27 | inner;
      total += within;
    }
  }
  /// Returns the number of ones before bit i, which may be the end.
  int64_t rank(int64_t i) const {
    const uint64_t count = counts_[i >> 9];
    const uint64_t* words = &words_[(i >> 7) * 2];
    const uint64_t below = (uint64_t{1} << (i & 63)) - 1;
    const bool second = i & 64;
    const uint64_t before = (count >> 27) + ((count << 9 >> (9 * ((i >> 7) & 3))) & 511);
    return static_cast<int64_t>(before) + std::popcount(words[0] & (second ? ~uint64_t{0} : below)) +
           std::popcount(words[1] & (second ? below : 0));
  }

 private:
  std::vector<uint64_t> words_;
  // Of each block of 512 bits: the number of ones before it in bits 27 to 63; below them three numbers of 9 bits,
  // of ones in its first 128, 256 and 384 bits.
  std::vector<uint64_t> counts_;
};

/// One bit of each symbol. The symbols are stably sorted by this bit to get their order on the next level.
struct Level {
  RankBits bits;
  int64_t zeros = 0;

  /// Returns the ranges on the next level of the symbols of a range: those with bit 0 and those with bit 1.
  std::array<FmIndex::Range, 2> split(FmIndex::Range range) const {
    const int64_t first = bits.rank(range.begin);
    const int64_t last = range.count() == 1 ? first + bits[range.begin] : bits.rank(range.end);
    return {{{range.begin - first, range.end - last}, {zeros + first, zeros + last}}};
  }
};

}  // namespace

struct FmIndex::Arrays {
  std::vector<int32_t> ids;  // of the tokens of the text, ascending
  // By symbol: first row of the suffixes that begin with it, minus the begin of its range on the last level.
  std::vector<int32_t> offsets;
  std::vector<Level> levels;     // of the Burrows-Wheeler transform, from the highest bit
  RankBits sampled;              // rows of the sampled positions
  std::vector<int32_t> samples;  // positions of the reversed text, by row

  /// Indexes the reversed text of `length` positions.
  Arrays(std::span<const std::vector<int32_t>> passages, int64_t length, int sample_rate);

  int32_t symbols() const { return kFirstToken + static_cast<int32_t>(ids.size()); }
  /// Returns the symbol of a token, or kTextEnd if the text does not contain it.
  int32_t symbol(int32_t token) const {
    const auto at = std::ranges::lower_bound(ids, token);
    return at != ids.end() && *at == token ? kFirstToken + static_cast<int32_t>(at - ids.begin()) : kTextEnd;
  }
  bool bit(int32_t symbol, size_t level) const { return symbol >> (levels.size() - 1 - level) & 1; }
  /// Returns the rows of the suffixes that begin with a symbol, from its range on the last level.
  Range rows(int32_t symbol, Range range) const {
    return {offsets[symbol] + range.begin, offsets[symbol] + range.end};
  }
  /// Returns the row of the suffix that begins one position before that of a row, which is not at position 0.
  int64_t previous(int64_t row) const;
  /// Returns the position of the suffix of a row.
  int64_t position(int64_t row) const;
  /// Appends the tokens of a range of a level whose higher bits are those of `prefix`.
  void add_successors(size_t level, int32_t prefix, Range range, std::vector<Successor>& successors) const;

 private:
  void sample_positions(std::span<const int32_t> suffixes, int sample_rate);
  /// Builds the levels. `buffer` has the size of `transform`; both are overwritten.
  void build_levels(std::vector<int32_t>& transform, std::vector<int32_t>& buffer);
};

FmIndex::Arrays::Arrays(std::span<const std::vector<int32_t>> passages, int64_t length, int sample_rate) {
  const size_t rows = static_cast<size_t>(length) + 1;
  std::vector<int32_t> suffixes;
  suffixes.reserve(rows);
  for (const std::vector<int32_t>& passage : passages)
    suffixes.insert(suffixes.end(), passage.begin(), passage.end());
  std::ranges::sort(suffixes);
  std::ranges::unique_copy(suffixes, std::back_inserter(ids));
  ids.shrink_to_fit();

  std::vector<int32_t> text(rows, kPassageEnd);
  text.back() = kTextEnd;
  auto at = text.end() - 1;
  for (const std::vector<int32_t>& passage : passages) {
    for (const int32_t token : passage) *--at = symbol(token);
    --at;
  }
  suffixes.resize(rows);
  sort_suffixes(text, suffixes, symbols());
  sample_positions(suffixes, sample_rate);
  for (int32_t& suffix : suffixes) suffix = text[suffix == 0 ? rows - 1 : static_cast<size_t>(suffix) - 1];
  build_levels(suffixes, text);
}

void FmIndex::Arrays::sample_positions(std::span<const int32_t> suffixes, int sample_rate) {
  sampled = RankBits(std::ssize(suffixes));
  samples.reserve((suffixes.size() - 1) / static_cast<size_t>(sample_rate) + 1);
  for (int64_t row = 0; row < std::ssize(suffixes); ++row) {
    if (suffixes[row] % sample_rate != 0) continue;
    sampled.set(row, true);
    samples.push_back(suffixes[row]);
  }
  sampled.count();
}

void FmIndex::Arrays::build_levels(std::vector<int32_t>& transform, std::vector<int32_t>& buffer) {
  const int64_t rows = std::ssize(transform);
  offsets.resize(static_cast<size_t>(symbols()));
  for (const int32_t symbol : transform) ++offsets[symbol];
  int32_t first = 0;
  for (int32_t& offset : offsets) offset = std::exchange(first, first + offset);

  levels.resize(static_cast<size_t>(std::bit_width(static_cast<uint32_t>(symbols() - 1))));
  for (size_t i = 0; i < levels.size(); ++i) {
    Level& level = levels[i];
    level.bits = RankBits(rows);
    for (int64_t row = 0; row < rows; ++row) level.bits.set(row, bit(transform[row], i));
    level.bits.count();
    level.zeros = rows - level.bits.rank(rows);
    int64_t to[] = {0, level.zeros};
    for (const int32_t symbol : transform) buffer[to[bit(symbol, i)]++] = symbol;
    transform.swap(buffer);
  }
  for (int64_t row = 0; row < rows; ++row)
    if (row == 0 || transform[row] != transform[row - 1]) offsets[transform[row]] -= static_cast<int32_t>(row);
}

int64_t FmIndex::Arrays::previous(int64_t row) const {
  int32_t symbol = 0;
  for (const Level& level : levels) {
    const bool bit = level.bits[row];
    symbol = symbol << 1 | bit;
    row = level.split({row, row + 1})[bit].begin;
  }
  return offsets[symbol] + row;
}

int64_t FmIndex::Arrays::position(int64_t row) const {
  int64_t steps = 0;
  for (; !sampled[row]; ++steps) row = previous(row);
  return samples[sampled.rank(row)] + steps;
}

void FmIndex::Arrays::add_successors(size_t level, int32_t prefix, Range range,
                                     std::vector<Successor>& successors) const {
  if (range.count() == 0) return;
  if (level < levels.size()) {
    const auto [zeros, ones] = levels[level].split(range);
    add_successors(level + 1, prefix << 1, zeros, successors);
    add_successors(level + 1, prefix << 1 | 1, ones, successors);
  } else if (prefix >= kFirstToken) {
    successors.push_back({ids[prefix - kFirstToken], rows(prefix, range)});
  }
}

FmIndex::FmIndex(std::span<const std::vector<int32_t>> passages, const FmIndexOptions& options) {
  if (options.sample_rate < 1)
    fail("an index of tokens needs a sample rate of at least 1, found ", options.sample_rate);
  int64_t length = 0;
  for (const std::vector<int32_t>& passage : passages) {
    begin_.push_back(length);
    length += std::ssize(passage) + 1;
    for (const int32_t token : passage)
      if (token < 0) fail("an index of tokens needs ids of at least 0, found ", token);
  }
  const int64_t max_length = std::min(options.max_length, kMaxLength);
  if (length > max_length)
    fail("an index of tokens holds at most ", max_length, " tokens and ends of passages, found ", length);
  tokens_ = length - std::ssize(passages);
  if (length == 0) return;
  arrays_ = std::make_unique<const Arrays>(passages, length, options.sample_rate);
  rows_ = length + 1;
}

FmIndex::~FmIndex() = default;
FmIndex::FmIndex(FmIndex&&) noexcept = default;
FmIndex& FmIndex::operator=(FmIndex&&) noexcept = default;

FmIndex::Range FmIndex::append(Range range, int32_t token) const {
  if (range.count() <= 0) return {};
  const int32_t symbol = arrays_->symbol(token);
  if (symbol == kTextEnd) return {};
  for (size_t i = 0; i < arrays_->levels.size(); ++i) {
    range = arrays_->levels[i].split(range)[arrays_->bit(symbol, i)];
    if (range.count() == 0) return {};
  }
  return arrays_->rows(symbol, range);
}

FmIndex::Range FmIndex::find(std::span<const int32_t> ngram) const {
  Range range = all();
  for (const int32_t token : ngram) range = append(range, token);
  return range;
}

std::vector<FmIndex::Successor> FmIndex::successors(Range range) const {
  std::vector<Successor> successors;
  if (range.count() > 0) arrays_->add_successors(0, 0, range, successors);
  return successors;
}

std::vector<FmIndex::Occurrence> FmIndex::locate(Range range, int64_t length) const {
  std::vector<Occurrence> occurrences;
  occurrences.reserve(static_cast<size_t>(std::max<int64_t>(range.count(), 0)));
  for (int64_t row = range.begin; row < range.end; ++row) {
    // the reversed text has rows_ − 1 positions; the n-gram's last token comes first in it
    const int64_t begin = rows_ - 1 - arrays_->position(row) - length;
    const auto passage = std::ranges::upper_bound(begin_, begin) - begin_.begin() - 1;
    occurrences.push_back({passage, begin - begin_[static_cast<size_t>(passage)]});
  }
  return occurrences;
}

}  // namespace fathom
