#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <span>
#include <string>

#include "models/reference_logits.h"
#include "program.h"
#include "shared_data.h"

namespace fathom::test {
namespace {

std::string join(const auto& numbers, char separator) {
  std::string text;
  for (const auto number : numbers)
    text += (text.empty() ? "" : std::string(1, separator)) + std::to_string(number);
  return text;
}

/// Runs `fathom logits` with additional options. Returns the rows at the reference's positions.
std::vector<float> rows_of(const std::string& name, const ReferenceLogits& reference,
                           const std::vector<std::string>& options = {}) {
  const Folder folder;
  std::vector<std::string> arguments = {"logits",
                                        "-m",
                                        golden(name) + ".gguf",
                                        "--tokens",
                                        folder.write("ids", join(reference.tokens, '\n')),
                                        "--at",
                                        join(reference.positions, ','),
                                        "-o",
                                        folder.path("rows")};
  arguments.insert(arguments.end(), options.begin(), options.end());
  EXPECT_EQ(output(arguments), "");
  return read_floats(folder.path("rows"));
}

/// The tolerances are those of the reference's README.
class CliLogitsGolden : public testing::TestWithParam<const char*> {
 protected:
  void expect_agreement(const std::vector<std::string>& options) {
    const std::string name = GetParam();
    const ReferenceLogits reference = read_reference(golden(name) + ".logits");
    const std::vector<float> found = rows_of(name, reference, options);
    size_t at = 0;
    for (const std::vector<float>& row : reference.rows) {
      for (const float expected : row) {
        const float tolerance = name == "tiny-gpt2-f16" ? 3e-2f : 2e-3f + 2e-4f * std::fabs(expected);
        ASSERT_NEAR(found.at(at++), expected, tolerance);
      }
    }
    EXPECT_EQ(at, found.size());
  }
};

TEST_P(CliLogitsGolden, EqualAnIndependentEngineWholeAndInChunks) {
  FATHOM_NEEDS(golden(GetParam()) + ".logits");
  expect_agreement({});
  expect_agreement({"--chunk", "7"});
  expect_agreement({"--chunk", "1", "-t", "1"});
}

INSTANTIATE_TEST_SUITE_P(Models, CliLogitsGolden,
                         testing::Values("tiny-llama-f16", "tiny-llama-bf16", "tiny-llama-untied-mha-f16",
                                         "tiny-llama-linear-f16", "tiny-llama-yarn-f16", "tiny-llama3-freqs-f16",
                                         "tiny-qwen2-f16", "tiny-qwen3-f16", "tiny-gpt2-f16"));

class CliLogitsQuantised : public testing::TestWithParam<const char*> {};

TEST_P(CliLogitsQuantised, HaveTheDirectionOfAnIndependentEngine) {
  const std::string name = GetParam();
  FATHOM_NEEDS(golden(name) + ".logits");
  const ReferenceLogits reference = read_reference(golden(name) + ".logits");
  const std::vector<float> found = rows_of(name, reference);
  const size_t vocabulary = reference.rows[0].size();
  ASSERT_EQ(found.size(), 4 * vocabulary);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_GT(cosine(reference.rows[i], std::span(found).subspan(i * vocabulary, vocabulary)), 0.999);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CliLogitsQuantised,
                         testing::Values("tiny-llama-q4_0", "tiny-llama-q5_0", "tiny-llama-q8_0", "tiny-llama-q2_k",
                                         "tiny-llama-q3_k_m", "tiny-llama-q4_k_m", "tiny-llama-q5_k_m",
                                         "tiny-llama-q6_k", "tiny-llama-iq4_xs"));

/// Tests with the default model, which is always available.
class CliLogits : public testing::Test {
 protected:
  std::vector<float> rows(const std::string& at, const std::vector<std::string>& options = {}) {
    std::vector<std::string> arguments = {"logits", "--tokens", "-", "-o", folder.path("rows")};
    if (!at.empty()) arguments.insert(arguments.end(), {"--at", at});
    arguments.insert(arguments.end(), options.begin(), options.end());
    EXPECT_EQ(output(arguments, ids), "");
    return read_floats(folder.path("rows"));
  }
  const Folder folder;
  const std::string ids = output({"tokens", "--bos"}, prose(600, 1));
  static constexpr size_t kVocabulary = 4096;
};

TEST_F(CliLogits, NumberOfThreadsDoesNotChangeResults) {
  EXPECT_EQ(rows("0,50,100", {"-t", "1"}), rows("0,50,100", {"-t", "2"}));
}

TEST_F(CliLogits, RowsAreInTheOrderOfAt) {
  const std::vector<float> forward = rows("3,90"), backward = rows("90,3,90");
  ASSERT_EQ(forward.size(), 2 * kVocabulary);
  ASSERT_EQ(backward.size(), 3 * kVocabulary);
  EXPECT_TRUE(std::equal(forward.begin() + kVocabulary, forward.end(), backward.begin()));
  EXPECT_TRUE(std::equal(forward.begin(), forward.begin() + kVocabulary, backward.begin() + kVocabulary));
  EXPECT_TRUE(std::equal(backward.begin(), backward.begin() + kVocabulary, backward.begin() + 2 * kVocabulary));
}

TEST_F(CliLogits, WithoutPositionsTheLastRowIsWritten) {
  const auto last = std::ranges::count(ids, ' ');
  EXPECT_EQ(rows(""), rows(std::to_string(last)));
}

TEST_F(CliLogits, MissingAndInvalidIdsAreErrors) {
  const std::string out = folder.path("none");
  expect_error(run({"logits", "--tokens", "-", "-o", out}, ""), 1, {"standard input", "token ids"});
  expect_error(run({"logits", "--tokens", "-", "-o", out}, "1 4096 2"), 1,
               {"token 1:", "from 0 to 4095", "found 4096"});
  expect_error(run({"logits", "--tokens", "-", "-o", out}, "1 -3"), 1, {"found -3"});
  expect_error(run({"logits", "--tokens", "-", "-o", out}, "1 ten"), 1, {"'ten'"});
  expect_error(run({"logits", "--tokens", "-", "--at", "2", "-o", out}, "1 5"), 2, {"position 2", "0 to 1"});
  expect_error(run({"logits", "--tokens", "-", "--at", "0,x", "-o", out}, "1 5"), 2, {"'0,x'"});
  expect_error(run({"logits", "--tokens", folder.path("missing"), "-o", out}), 1, {"missing", "No such file"});
  EXPECT_FALSE(std::filesystem::exists(out));
}

TEST_F(CliLogits, AFullDiskIsAnErrorWithoutAFile) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "this system has no /dev/full";
  expect_error(run({"logits", "--tokens", "-", "-o", "/dev/full"}, ids), 1, {"/dev/full", "No space left"});
  expect_error(run({"logits", "--tokens", "-", "-o", folder.path("no/such/folder")}, ids), 1, {"no/such/folder"});
}

}  // namespace
}  // namespace fathom::test
