#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "program.h"

namespace fathom::test {
namespace {

TEST(CliBench, JsonHasTheFieldsOfTheContract) {
  std::istringstream lines(output(
      {"bench", "--prefill", "16,32", "--depth", "0,64", "--decode", "2", "--repeat", "1", "-t", "2", "--json"}));
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  const nlohmann::json machine = nlohmann::json::parse(line);
  EXPECT_EQ(machine["test"], "machine");
  EXPECT_TRUE(machine["isa"].is_string());
  EXPECT_EQ(machine["threads"], 2);
  EXPECT_GT(machine["read_bytes_per_second"], 0);
  EXPECT_GT(machine["flops_per_second"], 0);
  int prefills = 0, decodes = 0;
  while (std::getline(lines, line)) {
    const nlohmann::json figure = nlohmann::json::parse(line);
    (figure["test"] == "prefill" ? prefills : decodes)++;
    EXPECT_TRUE(figure["test"] == "prefill" || figure["test"] == "decode") << line;
    EXPECT_EQ(figure["model"], "fathom-seedling");
    EXPECT_TRUE(figure["depth"] == 0 || figure["depth"] == 64) << line;
    EXPECT_EQ(figure["threads"], 2);
    EXPECT_EQ(figure["attend"], "dense");
    EXPECT_EQ(figure["cache"], "bf16");
    for (const char* field : {"tokens", "tokens_per_second", "share_of_limit", "peak_rss_bytes"}) {
      EXPECT_GT(figure[field], 0) << field << " in " << line;
    }
  }
  EXPECT_EQ(prefills, 4);
  EXPECT_EQ(decodes, 2);
}

TEST(CliBench, UnknownShapesTypesAndSizesAreUsageErrors) {
  expect_error(run({"bench", "--shape", "llama-2b"}), 2, {"llama-2b", "llama-1b"});
  expect_error(run({"bench", "--shape", "llama-1b:q9"}), 2, {"q9", "q4_k"});
}

}  // namespace
}  // namespace fathom::test
