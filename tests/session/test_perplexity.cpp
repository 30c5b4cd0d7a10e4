// The loss of the default model on the project's prose, which is not in its training data, for all kernels and page
// formats.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "kernels/amx_emulator.h"
#include "paths.h"
#include "session/session.h"
#include "tokens/tokenizer.h"

namespace fathom {
namespace {

/// Returns the mean negative log-likelihood of the first `count` tokens, in nats per token.
double loss(const Kernels& table, const std::string& cache, size_t count) {
  const auto model = Model::open(test::seedling_path());
  std::ifstream file(test::data_path("prose.txt"));
  std::stringstream text;
  text << file.rdbuf();
  std::vector<int32_t> tokens = Tokenizer(Vocabulary::read(*model->file())).encode(text.str());
  tokens.resize(std::min(tokens.size(), count));
  SessionOptions options;
  options.cache = cache;
  Session session(model, std::make_shared<Runtime>(2, table), options);
  double total = 0;
  AppendOptions append;
  append.on_logits = [&](int64_t i, std::span<const float> logits) {
    if (i + 1 == static_cast<int64_t>(tokens.size())) return;
    const float largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
    total += std::log(sum) + largest - logits[tokens[i + 1]];
  };
  session.append(tokens, append);
  return total / static_cast<double>(tokens.size() - 1);
}

// Over 512 tokens, rounding changes the loss by about 0.001; over a book by a tenth of that.
TEST(Perplexity, EqualsTheReferenceOnEveryIsa) {
  constexpr size_t kTokens = 512;
  const double plain = loss(kernels("reference"), "f32", kTokens);
  ASSERT_GT(plain, 1.0);
  for (const std::string& isa : available_isas()) {
    if (isa == "reference") continue;
    EXPECT_NEAR(loss(kernels(isa), "bf16", kTokens), plain, 2e-3) << isa;
  }
  EXPECT_NEAR(loss(kernels(), "q8", kTokens), plain, 5e-3);
  EXPECT_NEAR(loss(kernels(), "q4", kTokens), plain, 0.05);
}

TEST(Perplexity, EqualsTheReferenceOnAmxTiles) {
  const std::optional<Kernels> table = amx_kernels();
  if (!table || !test::AmxEmulator::possible()) GTEST_SKIP() << "this machine has no AMX and cannot emulate it";
  const size_t tokens = test::AmxEmulator::needed() ? 128 : 512;  // emulation is slow
  const double plain = loss(kernels("reference"), "f32", tokens);
  const test::AmxEmulator emulator;
  EXPECT_NEAR(loss(*table, "bf16", tokens), plain, 4e-3);
  EXPECT_NEAR(loss(*table, "q8", tokens), plain, 8e-3);
}

}  // namespace
}  // namespace fathom
