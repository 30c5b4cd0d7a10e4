// Compares architectures with the logits of an independent engine, which ran them with weights dequantised to
// float32.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "reference_logits.h"
#include "session/session.h"
#include "shared_data.h"

namespace fathom {
namespace {

using test::ReferenceLogits;

struct ArchitectureCase {
  const char* name;
  float absolute = 3e-4f, relative = 5e-5f;  // tolerance of a logit
  bool quantised = false;                    // quantised activations: only direction and best token must agree
};
constexpr ArchitectureCase kArchitectureCases[] = {
    {"architectures/tiny-mamba-f16"},
    {"architectures/tiny-mamba-rms-f16"},
    {"architectures/tiny-mamba2-f16"},
    {"architectures/tiny-falcon-h1-f16"},
    {.name = "architectures/tiny-gemma3-f16", .absolute = 1.5e-2f},  // the reference rounds GELU to 16 bits
    {"architectures/tiny-qwen3moe-f16"},
    {"architectures/tiny-gpt-oss-f16"},
    {.name = "architectures/tiny-gpt-oss-mxfp4-f16", .quantised = true},
    {.name = "tiny-mamba-f16",
     .absolute = 2e-3f,
     .relative = 2e-4f},  // the reference rounds activations to float16
    {.name = "tiny-mamba2-f16", .absolute = 2e-3f, .relative = 2e-4f},
};

using LogitRows = std::map<int64_t, std::vector<float>>;

/// Returns the logits at the positions of the reference, with the prompt read in chunks.
LogitRows read_in_chunks(const std::shared_ptr<const Model>& model, const ReferenceLogits& reference,
                         const Kernels& table, int threads, int64_t chunk) {
  SessionOptions options;
  options.cache = "f32";
  options.chunk = chunk;
  Session session(model, std::make_shared<Runtime>(threads, table), options);
  LogitRows rows;
  AppendOptions append;
  append.needs_logits = [&](int64_t i) { return std::ranges::count(reference.positions, i) > 0; };
  append.on_logits = [&](int64_t i, std::span<const float> logits) {
    rows[i].assign(logits.begin(), logits.end());
  };
  session.append(reference.tokens, append);
  return rows;
}

int64_t best_token(const std::vector<float>& logits) { return std::ranges::max_element(logits) - logits.begin(); }

void expect_agreement(const ReferenceLogits& reference, const LogitRows& rows, const ArchitectureCase& golden) {
  for (size_t p = 0; p < reference.positions.size(); ++p) {
    SCOPED_TRACE("position " + std::to_string(reference.positions[p]));
    const std::vector<float>& expected = reference.rows[p];
    const std::vector<float>& found = rows.at(reference.positions[p]);
    ASSERT_EQ(expected.size(), found.size());
    if (golden.quantised) {
      EXPECT_GT(test::cosine(expected, found), 0.99);
      EXPECT_EQ(best_token(expected), best_token(found));
      continue;
    }
    for (size_t v = 0; v < expected.size(); ++v)
      ASSERT_NEAR(expected[v], found[v], golden.absolute + golden.relative * std::fabs(expected[v]))
          << "token " << v;
  }
}

class ArchitectureGolden : public testing::TestWithParam<ArchitectureCase> {};

TEST_P(ArchitectureGolden, MatchesReferenceLogitsForEveryChunkSizeAndThreadCount) {
  const std::string path = test::golden(GetParam().name);
  FATHOM_NEEDS(path + ".gguf");
  const auto model = Model::open(path + ".gguf");
  const ReferenceLogits reference = test::read_reference(path + ".logits");
  for (const int64_t chunk : {int64_t{512}, int64_t{64}, int64_t{7}, int64_t{1}}) {
    SCOPED_TRACE("chunks of " + std::to_string(chunk));
    const LogitRows one = read_in_chunks(model, reference, kernels(), 1, chunk);
    expect_agreement(reference, one, GetParam());
    EXPECT_TRUE(one == read_in_chunks(model, reference, kernels(), 2, chunk)) << "results differ with two threads";
  }
}

TEST_P(ArchitectureGolden, MatchesReferenceLogitsOnEveryIsa) {
  const std::string path = test::golden(GetParam().name);
  FATHOM_NEEDS(path + ".gguf");
  const auto model = Model::open(path + ".gguf");
  const ReferenceLogits reference = test::read_reference(path + ".logits");
  for (const std::string& isa : available_isas()) {
    SCOPED_TRACE(isa);
    expect_agreement(reference, read_in_chunks(model, reference, kernels(isa), 2, 512), GetParam());
  }
}

INSTANTIATE_TEST_SUITE_P(Files, ArchitectureGolden, testing::ValuesIn(kArchitectureCases), [](const auto& param) {
  std::string name = param.param.name;
  std::ranges::replace_if(
      name, [](char c) { return c == '-' || c == '/'; }, '_');
  return name;
});

/// Returns the bytes of a golden file with renamed tensors (an empty name removes one) and changed metadata. They
/// must outlive their models.
std::vector<std::byte> rewritten(const std::string& path, const std::function<std::string(std::string)>& name_of,
                                 const std::function<void(GgufWriter&)>& change = {}) {
  const Gguf file = Gguf::open(path);
  GgufWriter writer;
  for (const std::string_view key : file.keys()) writer.set_value(std::string(key), *file.find(key));
  for (const GgufTensor& tensor : file.tensors()) {
    const std::string name = name_of(std::string(tensor.name));
    if (!name.empty()) writer.add_tensor(name, tensor.type, tensor.shape, {tensor.data, tensor.bytes});
  }
  if (change) change(writer);
  return writer.bytes();
}

std::string same_name(std::string name) { return name; }

TEST(FalconH1, FeedForwardNormMayHaveEitherName) {
  const std::string path = test::golden("architectures/tiny-falcon-h1-f16");
  FATHOM_NEEDS(path + ".gguf");
  const std::vector<std::byte> bytes = rewritten(
      path + ".gguf", [](const std::string& name) { return name.ends_with("ffn_norm") ? name + ".weight" : name; });
  const ReferenceLogits reference = test::read_reference(path + ".logits");
  const auto renamed = Model::from(Gguf::parse(bytes, "renamed.gguf")), plain = Model::open(path + ".gguf");
  EXPECT_EQ(read_in_chunks(renamed, reference, kernels(), 2, 512),
            read_in_chunks(plain, reference, kernels(), 2, 512));
}

TEST(FalconH1, StateSpaceNormIsOptional) {
  const std::string path = test::golden("architectures/tiny-falcon-h1-f16");
  FATHOM_NEEDS(path + ".gguf");
  const std::vector<std::byte> bytes = rewritten(
      path + ".gguf", [](const std::string& name) { return name.ends_with("ssm_norm.weight") ? "" : name; });
  const ReferenceLogits reference = test::read_reference(path + ".logits");
  const auto model = Model::from(Gguf::parse(bytes, "plain.gguf"));
  for (const auto& [position, logits] : read_in_chunks(model, reference, kernels(), 2, 512))
    for (const float v : logits) ASSERT_TRUE(std::isfinite(v)) << position;
}

TEST(Mamba2, RejectsHeadsThatDoNotDivideChannelsAndGroups) {
  const std::string path = test::golden("architectures/tiny-mamba2-f16.gguf");
  FATHOM_NEEDS(path);
  for (const auto& [key, value] : {std::pair{"time_step_rank", 3}, {"group_count", 3}}) {
    const std::string full = std::string("mamba2.ssm.") + key;
    const std::vector<std::byte> bytes = rewritten(path, same_name, [&, number = value](GgufWriter& writer) {
      writer.set(full, GgufType::kU32, int64_t{number});
    });
    try {
      Model::from(Gguf::parse(bytes, "uneven.gguf"));
      ADD_FAILURE() << full << " was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(full), std::string::npos) << error.what();
    }
  }
}

TEST(Mamba, RejectsConvolutionWidthThatDiffersFromMetadata) {
  const std::string path = test::golden("architectures/tiny-mamba-f16.gguf");
  FATHOM_NEEDS(path);
  const std::vector<std::byte> bytes = rewritten(
      path, same_name, [](GgufWriter& writer) { writer.set("mamba.ssm.conv_kernel", GgufType::kU32, int64_t{5}); });
  EXPECT_THROW(Model::from(Gguf::parse(bytes, "wide.gguf")), Error);
}

}  // namespace
}  // namespace fathom
