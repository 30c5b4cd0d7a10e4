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

// What tests of tasks need.
namespace fathom::eval {

/// The only task of a spec.
inline std::shared_ptr<const Task> task_of(const std::string& spec) {
  const TaskList tasks = task_methods().make(spec);
  EXPECT_EQ(tasks.size(), 1u) << spec;
  return tasks.at(0);
}

/// Input whose tokens are counted by `count`; a prompt has one more, as for BOS.
inline TaskInput input_counted_by(std::function<int64_t(std::string_view)> count, uint64_t seed = 1) {
  static const std::unique_ptr<Haystack> prose = prose_haystack();
  TaskInput input;
  input.count = count;
  input.measure = [count](const Sample& sample) { return count(sample.prompt()) + 1; };
  input.haystack = prose.get();
  input.seed = seed;
  return input;
}
/// Four bytes a token.
inline TaskInput bytes_input(uint64_t seed = 1) {
  return input_counted_by([](std::string_view text) { return static_cast<int64_t>(text.size() + 3) / 4; }, seed);
}
/// The tokens of the default model.
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

/// What a model that knows says, and one that says nothing or predicts nothing.
inline Answer right_answer(const Sample& sample) {
  if (sample.mode == Sample::Mode::kGenerate) return {sample.references.at(0), {}};
  return {"", std::vector<SpanScore>(sample.asked.size(), {0.01, 1, true})};
}
inline Answer no_answer(const Sample& sample) {
  if (sample.mode == Sample::Mode::kGenerate) return {};
  return {"", std::vector<SpanScore>(sample.asked.size(), {9.0, 1, false})};
}
inline double value_of(const Task& task, const Sample& sample, const std::string& text) {
  return task.score(sample, {text, {}}).value;
}

/// All that two samples could differ in.
inline std::string everything(const Sample& sample) {
  std::string all = sample.context + "|" + sample.question + "|" + sample.lead + "|" + sample.details.dump();
  for (const std::string& reference : sample.references) all += "|" + reference;
  for (const auto* spans : {&sample.asked, &sample.evidence}) {
    for (const TextSpan span : *spans) all += " " + std::to_string(span.begin) + "-" + std::to_string(span.end);
  }
  return all + "|" + std::to_string(sample.reserve) + "|" + std::to_string(sample.depth.value_or(-1));
}

/// The length that a task says it needs when asked for one token.
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

/// `right` of `of` guesses, each right with probability `chance`, may be that many: within 3 standard errors.
inline void expect_chance(double right, double of, double chance) {
  EXPECT_NEAR(right / of, chance, 3 * std::sqrt(chance * (1 - chance) / of)) << right << " of " << of;
}

}  // namespace fathom::eval
