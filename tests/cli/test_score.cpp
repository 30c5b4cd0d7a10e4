#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>

#include "program.h"

namespace fathom::test {
namespace {

/// Returns Σ −ln p(token | tokens before it) over all tokens but the first, in double, from rows of logits.
double nats_of(const std::vector<int>& tokens, const std::vector<float>& rows) {
  const size_t vocabulary = rows.size() / (tokens.size() - 1);
  double nats = 0;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    const float* row = rows.data() + i * vocabulary;
    double sum = 0;
    const double max = *std::max_element(row, row + vocabulary);
    for (size_t v = 0; v < vocabulary; ++v) sum += std::exp(row[v] - max);
    nats += max + std::log(sum) - row[tokens[i + 1]];
  }
  return nats;
}

std::vector<int> tokens_of(const std::string& text) {
  std::istringstream in(output({"tokens", "--bos"}, text));
  std::vector<int> tokens;
  for (int id; in >> id;) tokens.push_back(id);
  return tokens;
}

/// Returns the same sum from the output of `fathom logits`.
double nats_from_logits(const std::vector<int>& tokens) {
  const Folder folder;
  std::string ids, at;
  for (size_t i = 0; i < tokens.size(); ++i) {
    ids += std::to_string(tokens[i]) + " ";
    if (i + 1 < tokens.size()) at += (i ? "," : "") + std::to_string(i);
  }
  output({"logits", "--tokens", "-", "--at", at, "-o", folder.path("rows")}, ids);
  return nats_of(tokens, read_floats(folder.path("rows")));
}

/// Expects that rows are contiguous and add up to the whole.
void expect_rows_add_up(const Json& score) {
  double nats = 0;
  int64_t tokens = 0, end = 0;
  for (const auto& row : score["by_position"].items()) {
    EXPECT_EQ(row["from"], end);
    end = row["to"].get<int64_t>();
    EXPECT_GT(row["to"].get<double>(), row["from"].get<double>());
    tokens += row["tokens"].get<int64_t>();
    nats += row["nll"].get<double>() * row["tokens"].get<double>();
  }
  EXPECT_EQ(tokens, score["tokens"]);
  EXPECT_NEAR(nats / tokens, score["nll"].get<double>(), 1e-9);
  EXPECT_NEAR(std::log(score["perplexity"].get<double>()), score["nll"].get<double>(), 1e-9);
}

TEST(CliScore, MeanEqualsTheOneComputedFromLogits) {
  const std::string text = prose(3500, 1);
  const std::vector<int> tokens = tokens_of(text);
  ASSERT_GT(tokens.size(), 600);
  const Json score = json_output({"score", "-f", "-", "--json"}, text);
  EXPECT_EQ(score["tokens"], tokens.size() - 1);
  EXPECT_NEAR(score["nll"].get<double>(), nats_from_logits(tokens) / (tokens.size() - 1), 1e-9);
  expect_rows_add_up(score);
  EXPECT_EQ(score["by_position"].size(), 2);
  EXPECT_EQ(score["by_position"][0]["to"], 512);
  EXPECT_EQ(score["by_position"][1]["to"], tokens.size() - 1);
}

TEST(CliScore, WindowsAreScoredSeparately) {
  const std::string text = prose(1500, 2);
  const std::vector<int> tokens = tokens_of(text);
  constexpr size_t kWindowTokens = 100;
  double nats = 0;
  for (size_t begin = 1; begin < tokens.size(); begin += kWindowTokens) {
    std::vector<int> window = {tokens[0]};
    window.insert(window.end(), tokens.begin() + begin,
                  tokens.begin() + std::min(begin + kWindowTokens, tokens.size()));
    nats += nats_from_logits(window);
  }
  const Json score = json_output({"score", "-f", "-", "--window", "100", "--json"}, text);
  EXPECT_EQ(score["tokens"], tokens.size() - 1);
  EXPECT_NEAR(score["nll"].get<double>(), nats / (tokens.size() - 1), 1e-9);
  expect_rows_add_up(score);
  EXPECT_EQ(score["by_position"].items().back()["to"], 100);
}

TEST(CliScore, BucketsAddUpToTheWhole) {
  const Json score = json_output({"score", "-f", "-", "--json"}, prose(18000, 3));
  expect_rows_add_up(score);
  EXPECT_GE(score["by_position"].size(), 5);
}

TEST(CliScore, TableEqualsJson) {
  const std::string text = prose(3000, 5);
  const std::string table = output({"score", "-f", "-"}, text);
  const Json score = json_output({"score", "-f", "-", "--json"}, text);
  char mean[32];
  std::snprintf(mean, sizeof mean, "%.4f nats", score["nll"].get<double>());
  EXPECT_NE(table.find(mean), std::string::npos) << table;
  EXPECT_EQ(std::ranges::count(table, '\n'), 3 + static_cast<int>(score["by_position"].size()));
  EXPECT_GT(score["tokens_per_second"].get<double>(), 0);
  EXPECT_GT(score["peak_rss_bytes"].get<double>(), 0);
  EXPECT_NE(table.find("tokens per second, peak memory"), std::string::npos) << table;
}

TEST(CliScore, AnyBytesCanBeScored) {
  EXPECT_GT(json_output({"score", "-f", "-", "--json"}, std::string("\xff\x00\xfe\x80", 4))["tokens"].get<double>(),
            0);
}

TEST(CliScore, NothingToScoreIsAnError) {
  expect_error(run({"score", "-f", "-"}, ""), 1, {"standard input", "nothing to score"});
  expect_error(run({"score"}), 2, {"--file"});
  expect_error(run({"score", "-f", "-", "--window", "0"}, "text"), 2, {"--window", "'0'"});
}

}  // namespace
}  // namespace fathom::test
