#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/registry.h"
#include "eval/rng.h"
#include "eval/haystack.h"
#include "eval/sample.h"

namespace fathom::eval {

/// What samples are made from, besides their number.
struct TaskInput {
  std::function<int64_t(std::string_view text)> count;   // tokens of a text, by the model's tokenizer
  std::function<int64_t(const Sample& sample)> measure;  // tokens of the whole prompt, BOS and chat form included
  const Haystack* haystack = nullptr;                    // the prose to hide things in
  uint64_t seed = 0;
};

/// What a task's score is.
struct Measure {
  std::string name = "score";    // of the axis: "score", "nats per token"
  bool higher_is_better = true;  // a score in [0, 1]; otherwise any number, lower is better
};

/// Makes samples and scores answers. Immutable; the same input gives the same sample, byte for byte.
class Task {
 public:
  explicit Task(std::string name) : name_(std::move(name)) {}
  virtual ~Task() = default;
  /// As records and reports call it: "niah_single_1", "longbench/hotpotqa".
  const std::string& name() const { return name_; }

  /// Number of samples there are; −1: as many as wanted.
  virtual int64_t available() const { return -1; }
  /// Sample `index` in at most `length` tokens, the reserve for the answer included: at least 95 % of them where
  /// the task makes its text itself. Throws Error for a length below what the task needs, saying what it needs, and
  /// for a haystack that is too short.
  virtual Sample make(const TaskInput& input, int64_t length, int64_t index) const = 0;
  /// In [0, 1] if higher is better.
  virtual Score score(const Sample& sample, const Answer& answer) const = 0;
  virtual Measure measure() const { return {}; }

 protected:
  /// The rng of one sample.
  Rng rng(const TaskInput& input, int64_t length, int64_t index) const {
    return Rng(input.seed, name_, length, index);
  }

 private:
  std::string name_;
};

using TaskList = std::vector<std::shared_ptr<const Task>>;
using TaskMethod = TaskList(const Values&);
/// The tasks of `fathom eval`: a name makes one task or, as "ruler" and the published sets, several.
const MethodTable<TaskMethod>& task_methods();

}  // namespace fathom::eval
