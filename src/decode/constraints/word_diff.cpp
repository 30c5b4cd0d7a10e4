#include "decode/constraints/word_diff.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

namespace fathom {
namespace {

// Largest number of differences, from each end of a box, up to which a shortest path is searched. Bounds the time
// for sequences without common words.
constexpr int64_t kMaxSteps = 256;

/// The farthest points that paths with some number of differences reach on each diagonal x − y, as x; −1: none.
class Frontier {
 public:
  /// height, width: of the box. steps: most differences.
  Frontier(int64_t height, int64_t width, int64_t steps)
      : height_(height), width_(width), farthest_(static_cast<size_t>(2 * steps + 3), -1), offset_(steps + 1) {
    (*this)[1] = 0;  // from where diagonal 0 starts
  }
  int64_t& operator[](int64_t k) { return farthest_[static_cast<size_t>(offset_ + k)]; }

  /// Sets and returns the farthest x on diagonal k with one more difference, followed by equal words.
  /// equal(x, y): whether the next words are equal.
  template <class Equal>
  int64_t extend(int64_t k, const Equal& equal) {
    const int64_t down = (*this)[k + 1], right = (*this)[k - 1] + 1;
    int64_t x = -1;
    if (down >= 0 && down - k <= width_) x = down;
    if (right > 0 && right <= height_) x = std::max(x, right);
    if (x >= 0)
      while (x < height_ && x - k < width_ && equal(x, x - k)) ++x;
    return (*this)[k] = x;
  }

 private:
  int64_t height_, width_;
  std::vector<int64_t> farthest_;
  int64_t offset_;
};

class WordDiff {
 public:
  WordDiff(std::span<const int32_t> a, std::span<const int32_t> b) : a_(a), b_(b) {}

  std::vector<DiffBox> run() {
    std::vector<DiffBox> open{{0, std::ssize(a_), 0, std::ssize(b_)}};  // the last one is the first in the text
    while (!open.empty()) {
      const DiffBox box = trim(open.back());
      open.pop_back();
      const bool one_sided = box.a == box.a_end || box.b == box.b_end;
      const auto middle = one_sided ? std::nullopt : find_middle(box);
      if (middle) {
        open.push_back({middle->first, box.a_end, middle->second, box.b_end});
        open.push_back({box.a, middle->first, box.b, middle->second});
      } else {
        add(box);
      }
    }
    return std::move(found_);
  }

 private:
  using Point = std::pair<int64_t, int64_t>;

  /// Returns the box without equal words at its beginning and end.
  DiffBox trim(DiffBox box) const {
    for (; box.a < box.a_end && box.b < box.b_end && a_[box.a] == b_[box.b]; ++box.b) ++box.a;
    for (; box.a < box.a_end && box.b < box.b_end && a_[box.a_end - 1] == b_[box.b_end - 1]; --box.b_end)
      --box.a_end;
    return box;
  }

  /// Adds a box that differs; joins it to the one before it if they touch.
  void add(const DiffBox& box) {
    if (box.a == box.a_end && box.b == box.b_end) return;
    if (!found_.empty() && found_.back().a_end == box.a && found_.back().b_end == box.b) {
      found_.back().a_end = box.a_end;
      found_.back().b_end = box.b_end;
    } else {
      found_.push_back(box);
    }
  }

  /// Returns a point of a shortest path through a trimmed box with words on both sides, other than its corners. If
  /// the path is too long to be searched, returns the point farthest from the beginning that was reached.
  std::optional<Point> find_middle(const DiffBox& box) const {
    const int64_t n = box.a_end - box.a, m = box.b_end - box.b, delta = n - m;
    const int64_t steps = std::min((n + m + 1) / 2, kMaxSteps);
    Frontier forward(n, m, steps), backward(n, m, steps);
    const auto equal = [&](int64_t x, int64_t y) { return a_[box.a + x] == b_[box.b + y]; };
    const auto equal_backward = [&](int64_t x, int64_t y) {
      return a_[box.a_end - 1 - x] == b_[box.b_end - 1 - y];
    };
    Point farthest{0, 0};
    for (int64_t d = 0; d <= steps; ++d) {
      for (int64_t k = -d; k <= d; k += 2) {
        const int64_t x = forward.extend(k, equal), other = delta - k;
        if (x < 0) continue;
        if (2 * x - k > farthest.first + farthest.second) farthest = {x, x - k};
        if (delta % 2 != 0 && std::abs(other) < d && meet(x, backward[other], n)) return inside(box, {x, x - k});
      }
      for (int64_t k = -d; k <= d; k += 2) {
        const int64_t x = backward.extend(k, equal_backward), other = delta - k;
        if (x >= 0 && delta % 2 == 0 && std::abs(other) <= d && meet(x, forward[other], n))
          return inside(box, {n - x, m - x + k});
      }
    }
    return inside(box, farthest);
  }

  /// Returns whether paths from both ends that reached x and y words along a diagonal of n words touch.
  static bool meet(int64_t x, int64_t y, int64_t n) { return y >= 0 && x + y >= n; }

  /// Returns the point of a box as a point of the sequences; nothing for its first and last corner.
  static std::optional<Point> inside(const DiffBox& box, Point point) {
    const Point global{box.a + point.first, box.b + point.second};
    if (global == Point(box.a, box.b) || global == Point(box.a_end, box.b_end)) return std::nullopt;
    return global;
  }

  std::span<const int32_t> a_, b_;
  std::vector<DiffBox> found_;
};

}  // namespace

std::vector<DiffBox> diff_words(std::span<const int32_t> a, std::span<const int32_t> b) {
  return WordDiff(a, b).run();
}

}  // namespace fathom
