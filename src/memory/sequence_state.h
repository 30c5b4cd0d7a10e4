#pragma once

#include <cstdint>
#include <memory>

namespace fathom {

/// What a method keeps of one sequence beside its pages. It belongs to the memory: forked with it, rewound with it.
class SequenceState {
 public:
  virtual ~SequenceState() = default;
  virtual std::unique_ptr<SequenceState> fork() const = 0;
  /// The sequence has only this many tokens any more.
  virtual void rewind(int64_t tokens) = 0;
};

}  // namespace fathom
