#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "eval/rng.h"
#include "eval/sample.h"

namespace fathom::train {

/// A text to train on, and where the answers in it are, in order.
struct MarkedText {
  std::string text;
  std::vector<eval::TextSpan> answers;
};

/// Running text of about so many bytes, beginning where the rng say.
using ProseSource = std::function<std::string(eval::Rng& rng, int64_t bytes)>;

/// Makes texts that ask about themselves. Immutable; the same rng give the same text.
class TaskSource {
 public:
  explicit TaskSource(std::string_view name) : name_(name) {}
  virtual ~TaskSource() = default;
  const std::string& name() const { return name_; }
  /// A text of about `bytes` bytes, longer only if the task needs more.
  virtual MarkedText make(eval::Rng rng, const ProseSource& prose, int64_t bytes) const = 0;

 private:
  std::string name_;
};

}  // namespace fathom::train
