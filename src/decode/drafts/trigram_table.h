#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace fathom {

/// The tokens that follow pairs of tokens, with weights. At most kSuccessors per pair, and at most `size` in all.
/// Source: Adaptive Draft-Verification for Efficient Large Language Model Decoding, 2024.
class TrigramTable {
 public:
  static constexpr int kSuccessors = 12;

  /// size: largest number of tri-grams; more than that halves the table. 12 to 2^28.
  explicit TrigramTable(int64_t size) : size_(static_cast<size_t>(size)) {}

  struct Successor {
    int32_t token;
    float probability;  // its share of the weights of the pair
  };
  /// Replaces the content of `successors` by those of the pair (a, b), the most likely first; of equal ones the
  /// lowest id first.
  void find(int32_t a, int32_t b, std::vector<Successor>& successors) const;

  /// Returns a successor of the pair (a, b), drawn by its probability with a number in [0, 1). Its token is −1 if
  /// the pair has none.
  Successor draw(int32_t a, int32_t b, double uniform) const;

  /// Adds to the weight of c after (a, b), up to `cap`. The thirteenth successor of a pair replaces the lightest.
  void add(int32_t a, int32_t b, int32_t c, float amount, float cap);
  /// Divides the weights of each pair by their sum.
  void normalise();

  int64_t size() const { return std::ssize(entries_); }  // number of tri-grams

 private:
  struct Entry {
    int32_t token;
    float weight;
    int32_t next;  // entry of the same pair, or −1
  };
  struct Slot {
    int32_t a = 0, b = 0, first = -1;  // first −1: empty
  };
  size_t find_slot(int32_t a, int32_t b) const;
  void grow();
  void halve();
  void insert(int32_t a, int32_t b, int32_t c, float weight);

  size_t size_, pairs_ = 0;
  std::vector<Entry> entries_;
  std::vector<Slot> slots_;  // open addressing; size: 0 or a power of two
};

}  // namespace fathom
