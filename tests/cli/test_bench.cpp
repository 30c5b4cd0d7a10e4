#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "program.h"

namespace fathom::test {
namespace {

TEST(CliBench, JsonHasTheDocumentedFields) {
  std::istringstream lines(output({"bench", "--prefill", "16,32", "--depth", "0,64", "--decode", "2", "--repeat",
                                   "2", "--seconds", "600", "-t", "2", "--json"}));
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  const Json machine = Json::parse(line);
  EXPECT_EQ(machine["test"], "machine");
  EXPECT_TRUE(machine["isa"].is_string());
  EXPECT_EQ(machine["threads"], 2);
  EXPECT_GT(machine["read_bytes_per_second"].get<double>(), 0);
  EXPECT_GT(machine["flops_per_second"].get<double>(), 0);
  EXPECT_GT(machine["bf16_flops_per_second"].get<double>(), 0);
  EXPECT_TRUE(machine["processor"].is_string());
  int prefills = 0, decodes = 0;
  while (std::getline(lines, line)) {
    const Json figure = Json::parse(line);
    const bool prefill = figure["test"] == "prefill";
    (prefill ? prefills : decodes)++;
    EXPECT_TRUE(figure["test"] == "prefill" || figure["test"] == "decode") << line;
    EXPECT_EQ(figure["model"], "fathom-seedling");
    EXPECT_TRUE(figure["depth"] == 0 || figure["depth"] == 64) << line;
    EXPECT_EQ(figure["threads"], 2);
    EXPECT_EQ(figure["attend"], "dense");
    EXPECT_EQ(figure["cache"], "bf16");
    for (const char* field : {"tokens", "tokens_per_second", "share_of_limit", "peak_rss_bytes"}) {
      EXPECT_GT(figure[field].get<double>(), 0) << field << " in " << line;
    }
    EXPECT_EQ(figure["repeats"], 2);
    EXPECT_EQ(figure["repeats_requested"], 2);
    EXPECT_EQ(figure["tokens_requested"], figure["tokens"]);
    EXPECT_TRUE(figure["limits_remeasured"].is_boolean());
    EXPECT_GE(figure["waited_share"].get<double>(), 0);
    EXPECT_LE(figure["tokens_per_second_min"].get<double>(), figure["tokens_per_second"].get<double>());
    EXPECT_GE(figure["tokens_per_second_max"].get<double>(), figure["tokens_per_second"].get<double>());
    const auto limits = prefill ? std::vector{"flops_per_second", "bf16_flops_per_second", "share_of_bf16_peak"}
                                : std::vector{"read_bytes_per_second"};
    for (const char* field : limits) EXPECT_GT(figure[field].get<double>(), 0) << field << " in " << line;
  }
  EXPECT_EQ(prefills, 4);
  EXPECT_EQ(decodes, 2);
}

TEST(CliBench, BesideComparesMethodsWithTheFirst) {
  std::istringstream lines(output({"bench", "--prefill", "16", "--depth", "512", "--decode", "2", "--repeat", "1",
                                   "--beside", "window:sink=4,window=64", "--beside", "hip:budget=64", "--json"}));
  std::vector<std::string> seen;
  for (std::string line; std::getline(lines, line);) {
    const Json figure = Json::parse(line);
    if (figure["test"] == "machine") continue;
    seen.push_back(figure["test"].get<std::string>() + " " + figure["attend"].get<std::string>());
    if (figure["attend"] == "dense") {
      EXPECT_EQ(figure["speed_up"], 1);
    } else {
      EXPECT_GT(figure["speed_up"].get<double>(), 0);
    }
    EXPECT_GE(figure["selecting_share"].get<double>(), 0);
    EXPECT_EQ(figure["depth"], 512);
  }
  EXPECT_EQ(seen,
            (std::vector<std::string>{"prefill dense", "prefill window:sink=4,window=64", "prefill hip:budget=64",
                                      "decode dense", "decode window:sink=4,window=64", "decode hip:budget=64"}));
  expect_error(run({"bench", "--beside", "windw"}), 2, {"windw", "did you mean window"});
}

TEST(CliBench, SequencesAreGeneratedTogether) {
  std::istringstream lines(output({"bench", "--prefill", "16", "--depth", "64", "--decode", "2", "--repeat", "1",
                                   "--sequences", "3", "--beside", "window:sink=4,window=16", "--json"}));
  int figures = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json figure = Json::parse(line);
    if (figure["test"] == "machine") continue;
    EXPECT_EQ(figure["sequences"], figure["test"] == "prefill" ? 1 : 3);
    EXPECT_EQ(figure["tokens"], figure["test"] == "prefill" ? 16 : 2);
    EXPECT_EQ(figure["depth"], 64);
    ++figures;
  }
  EXPECT_EQ(figures, 4);
  expect_error(run({"bench", "--sequences", "0"}), 2, {"--sequences", "at least 1"});
}

TEST(CliBench, TooLittleTimeGivesOneShortRunAndANote) {
  const Result result = run({"bench", "--prefill", "256", "--depth", "64", "--decode", "8", "--repeat", "3",
                             "--seconds", "1e-6", "--beside", "window:sink=4,window=16", "--json"});
  EXPECT_EQ(result.code, 0) << result.err;
  std::istringstream lines(result.out);
  int figures = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json figure = Json::parse(line);
    if (figure["test"] == "machine") continue;
    const bool prefill = figure["test"] == "prefill";
    EXPECT_EQ(figure["tokens"], prefill ? 64 : 1) << line;
    EXPECT_EQ(figure["tokens_requested"], prefill ? 256 : 8) << line;
    EXPECT_EQ(figure["repeats"], 1) << line;
    EXPECT_EQ(figure["repeats_requested"], 3) << line;
    EXPECT_GT(figure["tokens_per_second"].get<double>(), 0) << line;
    ++figures;
  }
  EXPECT_EQ(figures, 4);
  for (const char* note : {"fathom: prefill 256 at depth 64: measured 1 of 3 runs of 64 tokens", "--seconds",
                           "fathom: decode 8 at depth 64: measured 1 of 3 runs of 1 tokens"}) {
    EXPECT_NE(result.err.find(note), std::string::npos) << note << " in " << result.err;
  }
}

TEST(CliBench, InvalidTimesAreUsageErrors) {
  for (const char* seconds : {"0", "-1", "many", "20s", "nan", "inf", ""}) {
    expect_error(run({"bench", "--seconds", seconds}), 2, {"--seconds", "above 0"});
  }
  expect_error(run({"bench", "--seconds"}), 2, {"--seconds"});
}

TEST(CliBench, UnknownShapesTypesAndSizesAreUsageErrors) {
  expect_error(run({"bench", "--shape", "llama-2b"}), 2, {"llama-2b", "llama-1b"});
  expect_error(run({"bench", "--shape", "llama-1b:q9"}), 2, {"q9", "q4_k"});
}

TEST(CliBench, PrefillLongerThanAChunkReadsAllOfIt) {
  std::istringstream lines(
      output({"bench", "--prefill", "80", "--chunk", "32", "--decode", "0", "--repeat", "1", "-t", "1", "--json"}));
  std::string line;
  std::getline(lines, line);
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_EQ(Json::parse(line)["tokens"], 80);
  EXPECT_FALSE(std::getline(lines, line));
}

TEST(CliBench, WrittenShapeIsAModelFile) {
  const Folder folder;
  const std::string path = folder.path("random.gguf");
  EXPECT_EQ(output({"bench", "--shape", "qwen3-0.6b:q2_k", "--write", path}), "");
  std::istringstream lines(
      output({"bench", "-m", path, "--prefill", "0", "--decode", "1", "--repeat", "1", "--json"}));
  std::string line;
  std::getline(lines, line);
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_EQ(Json::parse(line)["model"], "qwen3-0.6b:q2_k");
  EXPECT_EQ(output({"tokens", "-m", path, "--decode"}, "300 301"), "token300token301");
}

TEST(CliBench, WriteNeedsAShapeAndAnExistingFolder) {
  expect_error(run({"bench", "--write", "x.gguf"}), 2, {"--write", "--shape"});
  expect_error(run({"bench", "--shape", "qwen3-0.6b:q2_k", "--write", "/nonexistent/x.gguf"}), 1, {"/nonexistent"});
}

}  // namespace
}  // namespace fathom::test
