#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "program.h"

namespace fathom::test {
namespace {

const std::string kWindow = "window:sink=0,window=64";

struct Results {
  std::vector<Json> samples, summaries;
};
Results results_of(const std::string& path) {
  Results results;
  std::istringstream lines(read_file(path));
  for (std::string line; std::getline(lines, line);) {
    const Json object = Json::parse(line);
    (object.value("summary", false) ? results.summaries : results.samples).push_back(object);
  }
  return results;
}

/// Waits until the file has this many bytes, for at most a minute.
void wait_for_bytes(const std::string& path, size_t bytes) {
  for (int wait = 0; wait < 30000; ++wait) {
    std::error_code error;
    const auto size = std::filesystem::file_size(path, error);
    if (!error && size >= bytes) return;
    ::usleep(2000);
  }
}

/// Returns the fields that identify a result.
std::string identity(const Json& sample) {
  return sample["task"].dump() + sample["length"].dump() + sample["method"].dump() + sample["sample"].dump();
}

TEST(CliEval, JsonLinesHaveTheDocumentedFields) {
  const Folder folder;
  const std::string path = folder.path("results.jsonl");
  output({"eval", "needle", "--lengths", "256,512", "--samples", "2", "--attend", kWindow, "--json", path});
  const Results results = results_of(path);
  ASSERT_EQ(results.samples.size(), 8u);
  ASSERT_EQ(results.summaries.size(), 4u);
  for (const Json& sample : results.samples) {
    EXPECT_EQ(sample["task"], "needle");
    EXPECT_TRUE(sample["length"] == 256 || sample["length"] == 512);
    EXPECT_TRUE(sample["method"] == "attend=dense" || sample["method"] == "attend=" + kWindow);
    EXPECT_TRUE(sample["sample"] == 0 || sample["sample"] == 1);
    EXPECT_GE(sample["score"].get<double>(), 0);
    EXPECT_TRUE(sample["answer"].is_string() && sample["reference"].is_array());
    EXPECT_GT(sample["prefill_tokens_per_second"].get<double>(), 0);
    EXPECT_GT(sample["decode_tokens_per_second"].get<double>(), 0);
    EXPECT_LE(sample["keys_attended_share"].get<double>(), 1);
    EXPECT_EQ(sample["keys_attended_share"] == 1, sample["method"] == "attend=dense");
  }
  for (const Json& summary : results.summaries) {
    for (const char* field : {"task", "length", "method", "n", "score", "low", "high"}) {
      EXPECT_TRUE(summary.contains(field)) << field;
    }
    EXPECT_EQ(summary["n"], 2);
  }
}

TEST(CliEval, JsonDashWritesToStdout) {
  std::istringstream lines(output({"eval", "passkey", "--lengths", "256", "--samples", "2", "--json", "-"}));
  int samples = 0, summaries = 0;
  for (std::string line; std::getline(lines, line);) {
    ++(Json::parse(line).contains("summary") ? summaries : samples);
  }
  EXPECT_EQ(samples, 2);
  EXPECT_EQ(summaries, 1);
}

TEST(CliEval, ASmallWindowScoresBelowTheBaseline) {
  const Folder folder;
  const std::string path = folder.path("r.jsonl"), page = folder.path("r.html");
  const std::string table = output({"eval", "needle", "passkey", "--lengths", "512", "--samples", "10", "--attend",
                                    kWindow, "--json", path, "--html", page, "--concurrency", "4"});
  for (const Json& summary : results_of(path).summaries) {
    const bool dense = summary["method"] == "attend=dense";
    EXPECT_EQ(summary["score"].get<double>() >= 0.9, dense) << summary.dump();
    EXPECT_EQ(summary["score"].get<double>() <= 0.3, !dense) << summary.dump();
  }
  EXPECT_NE(table.find("attend=dense"), std::string::npos);
  EXPECT_NE(table.find("attend=" + kWindow), std::string::npos);
  EXPECT_TRUE(table.ends_with("\n"));
  const std::string html = read_file(page);
  EXPECT_NE(html.find("fathom eval needle passkey --lengths 512"), std::string::npos) << "the exact command";
  EXPECT_EQ(html.find("src=\"http"), std::string::npos);
}

TEST(CliEval, ContinuesAfterAKill) {
  const Folder folder;
  const std::string path = folder.path("r.jsonl");
  const std::vector<std::string> command = {"eval", "needle", "vt", "--lengths", "1k",   "--samples",
                                            "12",   "--json", path, "--attend",  kWindow};
  size_t found = 0;
  for (int kills = 0; kills < 3; ++kills) {
    Program program(command);
    wait_for_bytes(path, found + 4000);  // until more results are written
    program.kill(SIGKILL);
    EXPECT_EQ(program.finish().signal, SIGKILL);
    found = std::filesystem::file_size(path);
  }
  const size_t before = results_of(path).samples.size();
  EXPECT_GT(before, 0u);
  EXPECT_LT(before, 48u);
  output(command);
  std::set<std::string> different;
  const Results results = results_of(path);
  for (const Json& sample : results.samples) different.insert(identity(sample));
  EXPECT_EQ(results.samples.size(), 48u);
  EXPECT_EQ(different.size(), 48u);
  const std::string whole = folder.path("whole.jsonl");
  std::vector<std::string> again = command;
  again[8] = whole;
  output(again);
  for (const Json& sample : results_of(whole).samples) {
    for (const Json& other : results.samples) {
      if (identity(other) == identity(sample)) {
        EXPECT_EQ(other["answer"], sample["answer"]);
      }
    }
  }
}

TEST(CliEval, InterruptSaysHowToContinue) {
  const Folder folder;
  const std::string path = folder.path("r.jsonl");
  Program program({"eval", "needle", "--lengths", "1k", "--samples", "5000", "--json", path});
  wait_for_bytes(path, 1);
  program.kill(SIGINT);
  const Result result = program.finish();
  expect_error(result, 130, {"interrupted", "again to continue", path});
}

TEST(CliEval, CombinesTheRequestedMethodsAfterTheBaseline) {
  const Folder folder;
  const std::string path = folder.path("r.jsonl");
  output({"eval", "passkey", "--lengths", "256", "--samples", "1", "--attend", "dense", "--attend", kWindow,
          "--cache", "bf16", "--cache", "q8", "--position", "ntk:factor=2", "--json", path});
  std::vector<std::string> methods;
  for (const Json& sample : results_of(path).samples) methods.push_back(sample["method"].text());
  EXPECT_EQ(methods, (std::vector<std::string>{"attend=dense", "attend=dense position=ntk:factor=2",
                                               "attend=" + kWindow + " position=ntk:factor=2",
                                               "attend=dense position=ntk:factor=2 cache=q8",
                                               "attend=" + kWindow + " position=ntk:factor=2 cache=q8"}));
}

TEST(CliEval, ApartRunsEachMethodAlone) {
  const Folder folder;
  const std::string path = folder.path("r.jsonl");
  output({"eval", "needle", "--lengths", "256", "--samples", "1", "--attend", kWindow, "--attend", "quest",
          "--cache", "q8", "--apart", "--json", path});
  std::vector<std::string> methods;
  for (const Json& sample : results_of(path).samples) methods.push_back(sample["method"].text());
  EXPECT_EQ(methods, (std::vector<std::string>{"attend=dense", "attend=dense cache=q8", "attend=" + kWindow,
                                               "attend=quest"}));
}

TEST(CliEval, DensePrefillReadsOnceForAllMethods) {
  const Folder folder;
  const std::string path = folder.path("r.jsonl");
  output({"eval", "needle", "--lengths", "512", "--samples", "3", "--attend", kWindow, "--dense-prefill", "--json",
          path});
  for (const Json& sample : results_of(path).samples) {
    EXPECT_TRUE(sample["method"].get<std::string>().ends_with(" prefill=dense"));
    if (sample["method"] != "attend=dense prefill=dense") {
      EXPECT_LT(sample["answer_keys_attended_share"].get<double>(), 0.5);
    }
  }
}

TEST(CliEval, TasksAreListedWithTheirParameters) {
  const std::string list = output({"methods", "task"});
  for (const char* task :
       {"ruler", "niah_single_1", "vt", "needle", "passkey", "kv_threads", "longbench", "infinitebench"})
    EXPECT_NE(list.find(std::string("\n  ") + task + " "), std::string::npos) << task;
  EXPECT_EQ(list.find("approximate"), std::string::npos);
  EXPECT_NE(output({"methods", "vt"}).find("hops"), std::string::npos);
}

TEST(CliEval, BadInputIsNamed) {
  const Folder folder;
  expect_error(run({"eval", "nedle"}), 2, {"nedle", "did you mean needle"});
  expect_error(run({"eval", "needle", "--lengths", "1k,x"}), 2, {"--lengths", "1k,4k"});
  expect_error(run({"eval", "needle", "--lengths", "1k,1k"}), 2, {"--lengths", "twice"});
  expect_error(run({"eval", "needle", "--lengths", "20"}), 1, {"needle", "needs at least", "the length is 20"});
  expect_error(run({"eval", "needle", "--attend", "windw"}), 2, {"windw", "window"});
  expect_error(run({"eval", "needle", "--cache", "q9"}), 2, {"q9", "q8"});
  expect_error(run({"eval", "needle", "--evict", "snapvk"}), 2, {"evict", "snapvk"});
  expect_error(run({"eval", "needle", "--haystack", "/no/such"}), 1, {"/no/such"});
  const std::string text = folder.write("short.txt", "A few words only.");
  expect_error(run({"eval", "needle", "--haystack", text}), 1, {text, "--repeat-haystack"});
  expect_error(run({"eval", "longbench"}), 2, {"path"});
  const std::string broken = folder.write(
      "niah_single_1.jsonl", "{\"index\":0,\"input\":\"x\",\"outputs\":[\"y\"],\"length\":5}\n{broken\n");
  expect_error(run({"eval", "ruler_file:path=" + broken}), 1, {broken, "line 2"});
  const std::string foreign = folder.write("notes.txt", "my notes\n");
  expect_error(run({"eval", "needle", "--json", foreign}), 1, {foreign, "line 1"});
  EXPECT_EQ(read_file(foreign), "my notes\n");
  expect_error(run({"eval", "needle", "--samples", "1", "--html", "/no/such/folder/page.html"}), 1,
               {"/no/such/folder"});
  expect_error(run({"eval", "needle", "--template", "x"}), 2, {"--chat"});
  expect_error(run({"eval", "needle", "--chat"}), 1, {"chat template"});
  expect_error(run({"eval", "needle", "-m", "/no/model.gguf"}), 1, {"/no/model.gguf"});
  expect_error(run({"eval"}), 2, {"task"});
}

}  // namespace
}  // namespace fathom::test
