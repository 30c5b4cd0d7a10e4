// Compares whole models with the logits of an independent engine.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "kernels/amx_emulator.h"
#include "reference_logits.h"
#include "session/session.h"
#include "shared_data.h"

namespace fathom {
namespace {

using test::ReferenceLogits;

enum class Agreement { kFloat, kGelu, kQuantised };
struct ModelCase {
  const char* name;
  Agreement agreement;
};
constexpr ModelCase kModelCases[] = {
    {"tiny-llama-f16", Agreement::kFloat},
    {"tiny-llama-bf16", Agreement::kFloat},
    {"tiny-llama-untied-mha-f16", Agreement::kFloat},
    {"tiny-llama-linear-f16", Agreement::kFloat},
    {"tiny-llama-yarn-f16", Agreement::kFloat},
    {"tiny-llama3-freqs-f16", Agreement::kFloat},
    {"tiny-qwen2-f16", Agreement::kFloat},
    {"tiny-qwen3-f16", Agreement::kFloat},
    {"tiny-gpt2-f16", Agreement::kGelu},
    {"tiny-llama-q4_0", Agreement::kQuantised},
    {"tiny-llama-q5_0", Agreement::kQuantised},
    {"tiny-llama-q8_0", Agreement::kQuantised},
    {"tiny-llama-q2_k", Agreement::kQuantised},
    {"tiny-llama-q3_k_m", Agreement::kQuantised},
    {"tiny-llama-q4_k_m", Agreement::kQuantised},
    {"tiny-llama-q5_k_m", Agreement::kQuantised},
    {"tiny-llama-q6_k", Agreement::kQuantised},
    {"tiny-llama-iq4_xs", Agreement::kQuantised},
};

using LogitRows = std::map<int64_t, std::vector<float>>;

/// Returns the logits at the positions of the reference, with the prompt read in chunks.
LogitRows read_in_chunks(const std::shared_ptr<const Model>& model, const ReferenceLogits& reference,
                         const Kernels& table, int threads, int64_t chunk, const std::string& cache = "f32") {
  SessionOptions options;
  options.cache = cache;
  options.chunk = chunk;
  Session session(model, std::make_shared<Runtime>(threads, table), options);
  LogitRows rows;
  AppendOptions append;
  append.needs_logits = [&](int64_t i) {
    return std::count(reference.positions.begin(), reference.positions.end(), i) > 0;
  };
  append.on_logits = [&](int64_t i, std::span<const float> logits) {
    rows[i].assign(logits.begin(), logits.end());
  };
  session.append(reference.tokens, append);
  return rows;
}

void expect_agreement(const ReferenceLogits& reference, const LogitRows& rows, Agreement agreement) {
  for (size_t p = 0; p < reference.positions.size(); ++p) {
    const std::vector<float>& expected = reference.rows[p];
    const std::vector<float>& found = rows.at(reference.positions[p]);
    ASSERT_EQ(expected.size(), found.size());
    if (agreement == Agreement::kQuantised) {
      EXPECT_GT(test::cosine(expected, found), 0.999) << "position " << reference.positions[p];
      std::vector<float> sorted = expected;
      std::partial_sort(sorted.begin(), sorted.begin() + 2, sorted.end(), std::greater<>());
      if (sorted[0] - sorted[1] > 0.1f) {
        EXPECT_EQ(std::max_element(expected.begin(), expected.end()) - expected.begin(),
                  std::max_element(found.begin(), found.end()) - found.begin());
      }
      continue;
    }
    for (size_t v = 0; v < expected.size(); ++v) {
      const float tolerance = agreement == Agreement::kGelu ? 3e-2f : 2e-3f + 2e-4f * std::fabs(expected[v]);
      ASSERT_NEAR(expected[v], found[v], tolerance) << "position " << reference.positions[p] << ", token " << v;
    }
  }
}

/// Returns whether no earlier file has the same weight type and kinds of layers. The other files differ only in
/// properties that do not affect kernels.
bool covers_other_kernels(const ModelCase& golden) {
  const std::string_view name = golden.name;
  return golden.agreement == Agreement::kQuantised || name == "tiny-llama-f16" || name == "tiny-llama-bf16" ||
         name == "tiny-gpt2-f16";
}

class GoldenModel : public testing::TestWithParam<ModelCase> {};

TEST_P(GoldenModel, MatchesReferenceLogitsOnEveryIsaAndChunkSize) {
  const std::string path = test::golden(GetParam().name);
  FATHOM_NEEDS(path + ".gguf");
  const auto model = Model::open(path + ".gguf");
  const ReferenceLogits reference = test::read_reference(path + ".logits");
  std::vector<std::string> isas = available_isas();
  if (!covers_other_kernels(GetParam())) isas.erase(isas.begin(), isas.end() - 1);
  for (const std::string& isa : isas) {
    for (const int64_t chunk : {int64_t{512}, int64_t{7}, int64_t{1}}) {
      if (isa == "reference" && chunk < 512) continue;  // slow, and the code of a row does not depend on the chunk
      SCOPED_TRACE(isa + ", chunks of " + std::to_string(chunk));
      expect_agreement(reference, read_in_chunks(model, reference, kernels(isa), 2, chunk), GetParam().agreement);
    }
  }
}

TEST_P(GoldenModel, QuantisedPagesStayNearTheReferenceLogits) {
  const std::string path = test::golden(GetParam().name);
  FATHOM_NEEDS(path + ".gguf");
  const auto model = Model::open(path + ".gguf");
  const ReferenceLogits reference = test::read_reference(path + ".logits");
  for (const auto& [cache, least] : {std::pair{"q8", 0.999}, std::pair{"q4", 0.95}}) {
    for (const int64_t chunk : {int64_t{512}, int64_t{7}}) {
      const LogitRows rows = read_in_chunks(model, reference, kernels(), 2, chunk, cache);
      for (size_t p = 0; p < reference.positions.size(); ++p) {
        EXPECT_GT(test::cosine(reference.rows[p], rows.at(reference.positions[p])), least)
            << cache << ", position " << reference.positions[p];
      }
    }
  }
}

TEST_P(GoldenModel, MatchesReferenceLogitsOnAmxTiles) {
  const std::optional<Kernels> table = amx_kernels();
  if (!table || !test::AmxEmulator::possible()) GTEST_SKIP() << "this machine has no AMX and cannot emulate it";
  if (test::AmxEmulator::needed() && !covers_other_kernels(GetParam()))
    GTEST_SKIP() << "emulation is slow, and another file has this weight type";
  const std::string path = test::golden(GetParam().name);
  FATHOM_NEEDS(path + ".gguf");
  const test::AmxEmulator emulator;
  const auto model = Model::open(path + ".gguf");
  ReferenceLogits reference = test::read_reference(path + ".logits");
  if (test::AmxEmulator::needed()) reference.cut(160);
  // Attention on tiles requires bfloat16 pages, whose error only the tolerance of quantised weights allows.
  const char* cache = GetParam().agreement == Agreement::kQuantised ? "bf16" : "f32";
  expect_agreement(reference, read_in_chunks(model, reference, *table, 2, 512, cache), GetParam().agreement);
}

TEST_P(GoldenModel, LogitsAreBitIdenticalWithAnyNumberOfThreads) {
  const std::string path = test::golden(GetParam().name);
  FATHOM_NEEDS(path + ".gguf");
  const auto model = Model::open(path + ".gguf");
  const ReferenceLogits reference = test::read_reference(path + ".logits");
  for (const int64_t chunk : {int64_t{512}, int64_t{7}, int64_t{1}}) {
    const LogitRows one = read_in_chunks(model, reference, kernels(), 1, chunk, "bf16");
    EXPECT_EQ(one, read_in_chunks(model, reference, kernels(), 2, chunk, "bf16")) << chunk;
    EXPECT_EQ(one, read_in_chunks(model, reference, kernels(), 3, chunk, "bf16")) << chunk;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenModel, testing::ValuesIn(kModelCases), [](const auto& param) {
  std::string name = param.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(GoldenStories, MatchReferenceLogits) {
  const std::string path = test::shared_path("thirdparty/stories260k/stories260k-f32");
  FATHOM_NEEDS(path + ".gguf");
  const auto model = Model::open(path + ".gguf");
  const ReferenceLogits reference = test::read_reference(path + ".logits");
  expect_agreement(reference, read_in_chunks(model, reference, kernels(), 2, 64), Agreement::kFloat);
}

}  // namespace
}  // namespace fathom
