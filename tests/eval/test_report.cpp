#include "eval/report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "eval/run_view.h"
#include "ruler_names.h"

namespace fathom::eval {
namespace {

Json summary(const std::string& task, int64_t length, const std::string& method, double score) {
  const Interval interval = wilson_interval(score, 20);
  return {{"model", "tiny"},
          {"task", task},
          {"length", length},
          {"method", method},
          {"n", 20},
          {"score", score},
          {"low", interval.low},
          {"high", interval.high},
          {"prefill_tokens_per_second", 1500.0},
          {"decode_tokens_per_second", 35.5},
          {"keys_attended_share", 0.25},
          {"cache_bytes", 12345678},
          {"same_answer_share", 0.5},
          {"kl", 0.0123}};
}

/// Returns a run of the tasks at two lengths with two methods. Scores decrease with the length and from the first
/// to the second method.
Json run_of(const std::vector<std::string>& tasks) {
  Json run = {{"command", "fathom eval"},
              {"models", {{{"name", "tiny"}}}},
              {"methods", {"attend=dense", "attend=window:sink=0,window=64"}},
              {"lengths", {512, 1024}},
              {"tasks", Json::array()},
              {"summaries", Json::array()},
              {"samples", Json::array()}};
  for (const std::string& task : tasks) {
    run["tasks"].push_back({{"name", task}, {"measure", "score"}, {"higher_is_better", true}});
    for (const int64_t length : {512, 1024}) {
      run["summaries"].push_back(summary(task, length, "attend=dense", length == 512 ? 0.95 : 0.85));
      run["summaries"].push_back(
          summary(task, length, "attend=window:sink=0,window=64", length == 512 ? 0.9 : 0.1));
    }
  }
  return run;
}

Json sample(const std::string& answer, double score) {
  return {{"model", "tiny"}, {"task", "vt"},   {"length", 512},    {"method", "attend=dense"},
          {"sample", 7},     {"score", score}, {"answer", answer}, {"reference", {"right"}}};
}

/// Returns the content of the page's data element without unescaping.
std::string data_text(const std::string& page) {
  const std::string open = R"(<script type="application/json" id="data">)";
  const size_t begin = page.find(open) + open.size();
  return page.substr(begin, page.find("</script", begin) - begin);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

int columns_of(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

size_t count(std::string_view text, std::string_view part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(Report, HostileAnswersRemainData) {
  const std::string hostile =
      "</script><script>alert(1)</script><!-- <script \u2028\u2029 & {{script}} \xff\xfe end";
  Json run = run_of({"vt"});
  const std::string harmless = html_report(run);
  run["samples"].push_back(sample(hostile, 0));
  run["command"] = hostile;
  run["models"][0]["name"] = hostile;
  const std::string page = html_report(run), data = data_text(page);

  EXPECT_EQ(count(page, "<script"), count(harmless, "<script"));
  EXPECT_EQ(count(page, "</script"), count(harmless, "</script"));
  EXPECT_EQ(data.find_first_of("<>&"), data.npos);
  EXPECT_EQ(page.find("\u2028"), page.npos);
  EXPECT_EQ(page.find("\u2029"), page.npos);
  EXPECT_EQ(utf8_valid_prefix(page), page.size());

  const Json read = Json::parse(data);
  const std::string kept = hostile.substr(0, hostile.find('\xff')) + "\ufffd\ufffd end";
  EXPECT_EQ(read["answers"]["shown"][0]["answer"], kept);
  EXPECT_EQ(read["command"], kept);
}

TEST(Report, PageLoadsNothing) {
  const std::string page = html_report(run_of({"vt"}));
  for (const char* part : {"http:", "https:", "src=", "@import", "url(", "fetch(", "XMLHttpRequest", "<link"}) {
    EXPECT_EQ(page.find(part), page.npos) << part;
  }
  EXPECT_NE(page.find("default-src 'none'"), page.npos);
}

TEST(Report, EveryPlaceholderOfTheTemplateIsFilled) {
  const std::string page = html_report(run_of({"vt"}));
  for (const char* name : {"{{style}}", "{{data}}", "{{script}}"}) EXPECT_EQ(page.find(name), page.npos) << name;
}

TEST(Report, SameRunGivesTheSameBytes) {
  Json run = run_of(kRulerNames);
  for (int i = 0; i < 50; ++i) run["samples"].push_back(sample("wrong", 0.1 * (i % 10)));
  EXPECT_EQ(html_report(run), html_report(run));
  EXPECT_EQ(terminal_table(run, 100), terminal_table(run, 100));
}

TEST(Report, FieldsMayBeMissingNullOrOfAnotherType) {
  const Json full = run_of({"vt"});
  std::vector<Json> runs = {Json(), Json::object(), Json::array(), 3};
  for (const auto& [key, value] : full.fields()) {
    for (const Json& other : {Json(), Json("text"), Json({1, nullptr, "x"})}) {
      runs.push_back(full);
      runs.back()[key] = other;
    }
    runs.push_back(full);
    runs.back().erase(key);
  }
  for (const auto& [key, value] : full["summaries"][0].fields()) {
    for (const Json& other : {Json(), Json(-1e300), Json("text")}) {
      runs.push_back(full);
      runs.back()["summaries"][0][key] = other;
    }
  }
  const Json one = sample("x", 0);
  for (const auto& [key, value] : one.fields()) {
    runs.push_back(full);
    runs.back()["samples"].push_back(one);
    runs.back()["samples"][0][key] = nullptr;
  }
  for (const Json& run : runs) {
    EXPECT_FALSE(Json::parse_or_null(data_text(html_report(run))).is_null()) << run.dump();
    EXPECT_FALSE(terminal_table(run, 80).empty()) << run.dump();
  }
}

TEST(Report, PageHasAnswersBelowTheFullScoreWithTheBaselineScore) {
  Json run = run_of({"vt"});
  run["samples"] = {sample("right", 1), sample("half", 0.5), sample("none", 0)};
  run["samples"][1]["method"] = run["samples"][2]["method"] = "attend=window:sink=0,window=64";
  const Json answers = Json::parse(data_text(html_report(run)))["answers"];
  ASSERT_EQ(answers["total"], 2);
  EXPECT_EQ(answers["shown"][0]["answer"], "none");
  EXPECT_EQ(answers["shown"][1]["answer"], "half");
  EXPECT_EQ(answers["shown"][1]["baseline_score"], 1);
}

TEST(Report, LongAnswersAreCutAtCharacterBoundaries) {
  Json run = run_of({"vt"});
  std::string long_answer = "x";
  for (int i = 0; i < 1000; ++i) long_answer += "é";
  run["samples"].push_back(sample(long_answer, 0));
  const Json data = Json::parse(data_text(html_report(run)));
  const std::string shown = data["answers"]["shown"][0]["answer"].text();
  EXPECT_LT(shown.size(), 610);
  EXPECT_TRUE(shown.ends_with("é…"));
}

TEST(Report, CellsOfTheHeatMapAreMeansAtADepth) {
  Json run = run_of({"vt"});
  for (const double score : {1.0, 0.0, 1.0, 1.0}) {
    run["samples"].push_back(sample("x", score));
    run["samples"].items().back()["depth"] = run["samples"].size() == 4 ? 0.5 : 0.25;
  }
  const Json cells = Json::parse(data_text(html_report(run)))["cells"];
  ASSERT_EQ(cells.size(), 2);
  EXPECT_EQ(cells[0]["from"], 0.25);
  EXPECT_EQ(cells[0]["n"], 3);
  EXPECT_NEAR(cells[0]["score"].get<double>(), 2.0 / 3, 1e-12);
  EXPECT_EQ(cells[1]["to"], 0.5);
}

TEST(Report, ManyDepthsAreBinnedInTenths) {
  Json run = run_of({"vt"});
  for (int i = 0; i <= 100; ++i) {
    run["samples"].push_back(sample("x", 1));
    run["samples"].items().back()["depth"] = i / 100.0;
  }
  const Json cells = Json::parse(data_text(html_report(run)))["cells"];
  ASSERT_EQ(cells.size(), 10);
  int64_t samples = 0;
  for (const Json& cell : cells.items()) samples += cell["n"].get<int64_t>();
  EXPECT_EQ(samples, 101);
}

TEST(RunView, MeansExcludeTasksThatAMethodLacksAndOtherMeasures) {
  Json run = run_of({"vt", "cwe", "fwe", "books"});
  run["tasks"][3] = {{"name", "books"}, {"measure", "nats per token"}, {"higher_is_better", false}};
  Json& summaries = run["summaries"];
  for (Json& one : summaries.items()) {
    if (one["task"] == "cwe") one["score"] = 0.5;
    if (one["task"] == "fwe" && one["method"] != "attend=dense") one["score"] = nullptr;
    if (one["task"] == "books") one["score"] = 3.5;
  }
  const auto means = task_means(view_run(run));
  ASSERT_EQ(means.size(), 8);  // two measures, two lengths, two methods
  EXPECT_EQ(means[0]["tasks"], 2);
  EXPECT_NEAR(means[0]["score"].get<double>(), (0.95 + 0.5) / 2, 1e-12);
  EXPECT_EQ(means[4]["measure"], "nats per token");
  EXPECT_EQ(means[4]["score"], 3.5);
}

TEST(RunView, RulerNeedsAllItsTasks) {
  EXPECT_EQ(ruler_means(view_run(run_of(kRulerNames))).size(), 4);
  EXPECT_TRUE(ruler_means(view_run(run_of({kRulerNames.begin(), kRulerNames.end() - 1}))).empty());
}

TEST(RunView, EffectiveLengthIsTheLargestAboveTheThreshold) {
  Json run = run_of(kRulerNames);
  const auto lengths = effective_lengths(ruler_means(view_run(run)));
  ASSERT_EQ(lengths.size(), 2);
  EXPECT_EQ(lengths[0]["length"], 512);  // 0.95, then 0.85
  for (Json& one : run["summaries"].items()) one["score"] = 0.855;
  EXPECT_TRUE(effective_lengths(ruler_means(view_run(run)))[0]["length"].is_null());
  for (Json& one : run["summaries"].items()) one["score"] = 0.857;
  EXPECT_EQ(effective_lengths(ruler_means(view_run(run)))[1]["length"], 1024);
}

TEST(TerminalTable, FitsTheWidthAndKeepsMethodAndScore) {
  Json run = run_of(kRulerNames);
  run["summaries"].push_back(
      summary("tâche_with_a_name_that_is_longer_than_a_narrow_terminal", 512, "attend=dense", 0.5));
  run["summaries"].push_back(summary("vt", 512, "attend=infllm:topk=16,block=128,local=4096,sink=128", 0.333));
  for (const int width : {0, 40, 41, 57, 80, 100, 140, 300}) {
    const std::string table = terminal_table(run, width);
    for (const std::string& line : lines_of(table)) EXPECT_LE(columns_of(line), std::max(width, 40)) << line;
    EXPECT_NE(table.find("0.333"), table.npos) << width;
    EXPECT_NE(table.find("attend=dense"), table.npos) << width;
  }
}

TEST(TerminalTable, ColumnsAreRightAlignedWithTheirTitles) {
  const std::vector<std::string> lines = lines_of(terminal_table(run_of({"vt"}), 140));
  ASSERT_GE(lines.size(), 5);
  const auto end_of = [](const std::string& line, std::string_view part) {
    return columns_of(line.substr(0, line.find(part) + part.size()));
  };
  EXPECT_EQ(end_of(lines[3], "0.950"), end_of(lines[0], "score"));
  EXPECT_EQ(end_of(lines[4], "0.900"), end_of(lines[0], "score"));
  EXPECT_EQ(end_of(lines[4], "35.5"), end_of(lines[0], "decode/s"));
  EXPECT_EQ(end_of(lines[3], "0.0123"), end_of(lines[0], "KL"));
}

TEST(TerminalTable, OnlyDisjointIntervalsAreMarked) {
  const std::string table = terminal_table(run_of({"vt"}), 140);
  EXPECT_NE(table.find("−0.750*"), table.npos);  // 0.85 against 0.1
  EXPECT_NE(table.find("−0.050 "), table.npos);  // 0.95 against 0.9
}

TEST(TerminalTable, MeansFollowTheTasksAndRulerHasAnEffectiveLength) {
  const std::string two = terminal_table(run_of({"vt", "cwe"}), 100);
  EXPECT_NE(two.find("mean of 2 tasks, 1k tokens"), two.npos);
  EXPECT_EQ(two.find("RULER"), two.npos);
  const std::string all = terminal_table(run_of(kRulerNames), 100);
  EXPECT_NE(all.find("RULER, mean of 13 tasks, 512 tokens"), all.npos);
  EXPECT_NE(all.find("effective length"), all.npos);
  EXPECT_EQ(terminal_table(run_of({"vt"}), 100).find("mean"), std::string::npos);
}

TEST(TerminalTable, ControlCharactersAreReplaced) {
  Json run = run_of({"vt"});
  run["summaries"].push_back(summary("\x1b[2Jtask\r\xff", 512, "attend=\x1b]0;x\x07", 0.5));
  const std::string table = terminal_table(run, 100);
  EXPECT_EQ(table.find_first_of("\x1b\r\x07\xff"), table.npos);
  EXPECT_NE(table.find("?[2Jtask??"), table.npos);
}

TEST(TerminalTable, TokensPerPassAreShownForRunsWithDraftsAndAveragedOverTasks) {
  Json run = run_of({"vt", "needle"});
  EXPECT_EQ(terminal_table(run, 200).find("tokens/pass"), std::string::npos);
  for (size_t i = 0; i < run["summaries"].size(); ++i)
    run["summaries"][i]["tokens_per_forward"] = run["summaries"][i]["task"] == "vt" ? 1.5 : 2.5;
  const std::string table = terminal_table(run, 200);
  for (const char* part : {"tokens/pass", " 1.50 ", " 2.50 ", " 2.00 "})
    EXPECT_NE(table.find(part), std::string::npos) << part << " in\n" << table;
}

TEST(TerminalTable, ColumnsWithoutNumbersAreOmitted) {
  Json run = run_of({"vt"});
  for (Json& one : run["summaries"].items()) one["kl"] = nullptr;
  EXPECT_EQ(terminal_table(run, 140).find("KL"), std::string::npos);
}

}  // namespace
}  // namespace fathom::eval
