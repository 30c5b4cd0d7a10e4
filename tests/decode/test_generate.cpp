#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "base/interrupt.h"
#include "decode/generate.h"
#include "default_model.h"
#include "paths.h"

namespace fathom {
namespace {

using test::loaded;

const std::string kQuestion =
    "The magic word of Anna is lantern.\nQuestion: What is the magic word of Anna?\n"
    "Answer: The magic word of Anna is";

struct GenerateResult {
  Generated result;
  int64_t session_length;
  std::vector<std::string> pieces;
};

GenerateResult run(const GenerateOptions& options, const std::vector<std::string>& steps = {}, uint64_t seed = 0,
                   SessionOptions session_options = {}, const std::string& prompt = kQuestion) {
  Session session(loaded().model, loaded().runtime, session_options);
  const std::vector<int32_t> tokens = loaded().tokenizer.encode(prompt);
  session.append(tokens);
  Sampler sampler(steps, seed);
  GenerateResult found;
  found.result = generate(session, loaded().tokenizer, sampler, tokens, options,
                          [&](std::string_view piece) { found.pieces.emplace_back(piece); });
  found.session_length = session.length() - static_cast<int64_t>(tokens.size());
  return found;
}

GenerateOptions up_to(int64_t tokens) {
  GenerateOptions options;
  options.max_tokens = tokens;
  options.ignore_eos = true;
  return options;
}

TEST(Generate, AnswersAndKeepsTheLeadingSpace) { EXPECT_EQ(run(up_to(12)).result.text.substr(0, 9), " lantern."); }

TEST(Generate, GreedyTokensMaximiseTheLogits) {
  const GenerateResult found = run(up_to(10));
  Session session(loaded().model, loaded().runtime);
  session.append(loaded().tokenizer.encode(kQuestion));
  for (const int32_t token : found.result.tokens) {
    const auto logits = session.logits();
    EXPECT_EQ(token, std::max_element(logits.begin(), logits.end()) - logits.begin());
    session.append({&token, 1});
  }
}

TEST(Generate, StopsAtMaxTokensAndReadsAllButTheLast) {
  const GenerateResult found = run(up_to(7));
  EXPECT_EQ(found.result.tokens.size(), 7);
  EXPECT_EQ(found.result.stop, StopReason::kLength);
  EXPECT_EQ(found.result.steps, 6);
  EXPECT_EQ(found.session_length, 6);
  EXPECT_TRUE(run(up_to(0)).result.tokens.empty());
}

TEST(Generate, PiecesConcatenateToTheText) {
  const GenerateResult found = run(up_to(40));
  std::string text;
  for (const std::string& piece : found.pieces) text += piece;
  EXPECT_EQ(text, found.result.text);
  EXPECT_GT(found.pieces.size(), 10);
}

TEST(Generate, StopStringIsFoundAcrossTokensAndNotEmitted) {
  GenerateOptions options = up_to(60);
  const std::string plain = run(options).result.text;
  options.stop = {"ntern.\n"};
  const GenerateResult found = run(options);
  EXPECT_EQ(found.result.stop, StopReason::kString);
  EXPECT_EQ(found.result.text, plain.substr(0, plain.find("ntern.\n")));
  EXPECT_LT(found.result.tokens.size(), 60);
}

TEST(Generate, ContextLimitStopsWithReasonLength) {
  SessionOptions limited;
  limited.context = static_cast<int64_t>(loaded().tokenizer.encode(kQuestion).size()) + 5;
  const GenerateResult found = run(up_to(100), {}, 0, limited);
  EXPECT_EQ(found.result.stop, StopReason::kLength);
  EXPECT_EQ(found.session_length, 5);
  EXPECT_EQ(found.result.tokens.size(), 6);  // the last token is sampled from the last logits and not read
}

TEST(Generate, EndOfGenerationTokenStopsUnlessIgnored) {
  // A high temperature over the whole vocabulary eventually samples every token.
  const std::vector<std::string> steps = {"temperature:t=30"};
  GenerateOptions options;
  options.max_tokens = 300;
  bool ended = false;
  for (uint64_t seed = 0; seed < 60 && !ended; ++seed) {
    const GenerateResult found = run(options, steps, seed, {}, "A");
    if (found.result.stop != StopReason::kEos) continue;
    ended = true;
    for (const int32_t token : found.result.tokens) EXPECT_FALSE(loaded().tokenizer.ends_generation(token));
    GenerateOptions on = options;
    on.ignore_eos = true;
    const GenerateResult longer = run(on, steps, seed, {}, "A");
    EXPECT_EQ(longer.result.tokens.size(), 300);
    EXPECT_TRUE(std::equal(found.result.tokens.begin(), found.result.tokens.end(), longer.result.tokens.begin()));
    EXPECT_TRUE(loaded().tokenizer.ends_generation(longer.result.tokens[found.result.tokens.size()]));
  }
  EXPECT_TRUE(ended);
}

TEST(Generate, InterruptionKeepsTheGeneratedText) {
  SessionOptions options;
  options.stop = &interrupt_token();
  Session session(loaded().model, loaded().runtime, options);
  const std::vector<int32_t> prompt = loaded().tokenizer.encode(kQuestion);
  session.append(prompt);
  Sampler sampler;
  install_interrupt_handler();
  int pieces = 0;
  const Generated found = generate(session, loaded().tokenizer, sampler, prompt, up_to(100), [&](std::string_view) {
    if (++pieces == 3) std::raise(SIGINT);
  });
  install_interrupt_handler();  // resets the token for the tests that follow
  EXPECT_EQ(found.stop, StopReason::kInterrupted);
  EXPECT_EQ(found.text, run(up_to(static_cast<int64_t>(found.tokens.size()))).result.text);
  EXPECT_LT(found.tokens.size(), 10);
  EXPECT_EQ(session.length(), static_cast<int64_t>(prompt.size() + found.tokens.size()) - 1);
}

TEST(Generate, SameSeedGivesTheSameTokensAndAnotherDoesNot) {
  const std::vector<std::string> steps = {"temperature:t=1"};
  const auto first = run(up_to(40), steps, 1).result.tokens;
  EXPECT_EQ(first, run(up_to(40), steps, 1).result.tokens);
  EXPECT_NE(first, run(up_to(40), steps, 2).result.tokens);
}

TEST(Generate, GenerationInTwoPartsDrawsTheSameTokens) {
  const std::vector<std::string> steps = {"temperature:t=1"};
  const std::vector<int32_t> whole = run(up_to(20), steps, 4).result.tokens;
  Session session(loaded().model, loaded().runtime);
  std::vector<int32_t> tokens = loaded().tokenizer.encode(kQuestion);
  session.append(tokens);
  Sampler sampler(steps, 4);
  std::vector<int32_t> found;
  for (int part = 0; part < 2; ++part) {
    const Generated result = generate(session, loaded().tokenizer, sampler, tokens, up_to(10));
    found.insert(found.end(), result.tokens.begin(), result.tokens.end());
    tokens.insert(tokens.end(), result.tokens.begin(), result.tokens.end());
    session.append({&tokens.back(), 1});
  }
  EXPECT_EQ(found, whole);
}

}  // namespace
}  // namespace fathom
