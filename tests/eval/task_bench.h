#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>

#include "base/error.h"
#include "eval/haystack.h"
#include "eval/task.h"
#include "formats/gguf.h"
#include "paths.h"
#include "tokens/tokenizer.h"

// Helpers for tests of tasks.
namespace fathom::eval {

/// Returns the only task of a spec.
inline std::shared_ptr<const Task> task_of(const std::string& spec) {
  const TaskList tasks = task_methods().make(spec);
  EXPECT_EQ(tasks.size(), 1u) << spec;
  return tasks.at(0);
}

/// Returns an input that counts tokens with `count`; a prompt has one more for BOS.
inline TaskInput input_counted_by(std::function<int64_t(std::string_view)> count, uint64_t seed = 1) {
  static const std::unique_ptr<Haystack> prose = prose_haystack();
  TaskInput input;
  input.count = count;
  input.measure = [count](const Sample& sample) { return count(sample.prompt()) + 1; };
  input.haystack = prose.get();
  input.seed = seed;
  return input;
}
/// One token per four bytes.
inline TaskInput bytes_input(uint64_t seed = 1) {
  return input_counted_by([](std::string_view text) { return static_cast<int64_t>(text.size() + 3) / 4; }, seed);
}
/// Counts tokens with the tokenizer of the default model.
inline TaskInput seedling_input(uint64_t seed = 1) {
  static const Tokenizer tokenizer(Vocabulary::read(Gguf::open(test::seedling_path())));
  return input_counted_by(
      [](std::string_view text) {
        return static_cast<int64_t>(tokenizer.encode(text, {.add_bos_eos = false}).size());
      },
      seed);
}

inline std::string text_at(const Sample& sample, TextSpan span) {
  return sample.prompt().substr(span.begin, span.end - span.begin);
}
inline int64_t tokens_of(const TaskInput& input, const Sample& sample) {
  return input.measure(sample) + sample.reserve;
}

/// Returns the answer of a perfect model, and one of a model that says nothing or predicts nothing.
inline Answer correct_answer(const Sample& sample) {
  if (sample.mode == Sample::Mode::kGenerate) return {sample.references.at(0), {}};
  return {"", std::vector<SpanScore>(sample.scored.size(), {0.01, 1, true})};
}
inline Answer no_answer(const Sample& sample) {
  if (sample.mode == Sample::Mode::kGenerate) return {};
  return {"", std::vector<SpanScore>(sample.scored.size(), {9.0, 1, false})};
}
inline double value_of(const Task& task, const Sample& sample, const std::string& text) {
  return task.score(sample, {text, {}}).value;
}

/// Returns all fields of a sample as text, for comparison.
inline std::string everything(const Sample& sample) {
  std::string all = sample.context + "|" + sample.question + "|" + sample.lead + "|" + sample.details.dump();
  for (const std::string& reference : sample.references) all += "|" + reference;
  for (const auto* spans : {&sample.scored, &sample.evidence}) {
    for (const TextSpan span : *spans) all += " " + std::to_string(span.begin) + "-" + std::to_string(span.end);
  }
  return all + "|" + std::to_string(sample.reserve) + "|" + std::to_string(sample.depth.value_or(-1));
}

/// Returns the length that a task names in its error for a length of one token.
inline int64_t needed_by(const Task& task, const TaskInput& input) {
  try {
    task.make(input, 1, 0);
  } catch (const Error& error) {
    const std::string text = error.what(), before = "needs at least ";
    const size_t at = text.find(before);
    if (at != std::string::npos) return std::stoll(text.substr(at + before.size()));
    ADD_FAILURE() << text;
  }
  return -1;
}

/// Expects `correct` of `count` guesses, each correct with probability `chance`, to be within 3 standard errors.
inline void expect_chance(double correct, double count, double chance) {
  EXPECT_NEAR(correct / count, chance, 3 * std::sqrt(chance * (1 - chance) / count)) << correct << " of " << count;
}

}  // namespace fathom::eval
