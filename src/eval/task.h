#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/registry.h"
#include "eval/haystack.h"
#include "eval/rng.h"
#include "eval/sample.h"

namespace fathom::eval {

/// Inputs from which samples are made.
struct TaskInput {
  std::function<int64_t(std::string_view text)> count;  // tokens of a text by the model's tokenizer
  std::function<int64_t(const Sample& sample)>
      measure;                         // tokens of the whole prompt, BOS and chat template included
  const Haystack* haystack = nullptr;  // text in which facts are hidden
  uint64_t seed = 0;
};

/// The quantity that a task's score measures.
struct Measure {
  std::string name = "score";    // axis title: "score", "nats per token"
  bool higher_is_better = true;  // scores are in [0, 1]; otherwise any number, where lower is better
};

/// Makes samples and scores answers. Immutable; the same input gives the same sample, byte for byte.
class Task {
 public:
  explicit Task(std::string name) : name_(std::move(name)) {}
  virtual ~Task() = default;
  /// Returns the name in records and reports: "niah_single_1", "longbench/hotpotqa".
  const std::string& name() const { return name_; }

  /// Returns the number of samples; −1: unlimited.
  virtual int64_t available() const { return -1; }
  /// Makes sample `index` with at most `length` tokens, the reserve for the answer included; tasks that generate
  /// their text use at least 95 % of them. Throws Error with the length needed if `length` is too short, and for a
  /// haystack that is too short.
  virtual Sample make(const TaskInput& input, int64_t length, int64_t index) const = 0;
  /// Returns a score in [0, 1] if higher is better.
  virtual Score score(const Sample& sample, const Answer& answer) const = 0;
  /// Returns the quantity that score() measures.
  virtual Measure measure() const { return {}; }

 protected:
  /// Returns the random numbers of one sample.
  Rng rng(const TaskInput& input, int64_t length, int64_t index) const {
    return Rng(input.seed, name_, length, index);
  }

 private:
  std::string name_;
};

using TaskList = std::vector<std::shared_ptr<const Task>>;
using TaskMethod = TaskList(const Values&);
/// The tasks of `fathom eval`. A name makes one task or several ("ruler" and the published sets).
const MethodTable<TaskMethod>& task_methods();

}  // namespace fathom::eval
