#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "eval/rng.h"
#include "eval/sample.h"

namespace fathom::train {

/// A training text and the spans of the answers in it, in order.
struct MarkedText {
  std::string text;
  std::vector<eval::TextSpan> answers;
};

/// Returns running text of about `bytes` bytes from a position drawn with `rng`.
using ProseSource = std::function<std::string(eval::Rng& rng, int64_t bytes)>;

/// Generates texts with questions about facts in them. Immutable; the same rng gives the same text.
class TaskSource {
 public:
  explicit TaskSource(std::string_view name) : name_(name) {}
  virtual ~TaskSource() = default;
  const std::string& name() const { return name_; }
  /// Returns a text of about `bytes` bytes; it is longer only if the task needs more. prose: source of the text in
  /// which the task is hidden.
  virtual MarkedText make(eval::Rng rng, const ProseSource& prose, int64_t bytes) const = 0;

 private:
  std::string name_;
};

}  // namespace fathom::train
