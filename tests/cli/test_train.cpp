#include <gmock/gmock.h>

#include <csignal>
#include <random>
#include <thread>

#include "paths.h"
#include "program.h"
#include "seed.h"

namespace fathom::test {
namespace {

#ifndef FATHOM_HAS_TRAINER

TEST(CliTrain, WithoutATrainerTheErrorNamesTheCommandsThatBuildIt) {
  expect_error(run({"train", "run.json"}), 1, {"no trainer", "scripts/setup --train", "scripts/build train"});
}

#else

/// A folder with some books and a config that trains a tiny model on them.
struct TrainingFolder {
  TrainingFolder() {
    std::filesystem::create_directories(folder.path("books"));
    std::filesystem::create_directories(folder.path("heldout"));
    for (uint32_t i = 0; i < 6; ++i) folder.write("books/" + std::to_string(i) + ".txt", prose(20000, i));
    folder.write("heldout/a.txt", prose(20000, 99));
    config = {{"name", "tiny"},
              {"tokenizer", folder.path("vocabulary.gguf")},
              {"new_tokenizer", {{"pieces", 320}}},
              {"model",
               {{"layers", 1},
                {"width", 32},
                {"heads", 2},
                {"kv_heads", 1},
                {"head_dim", 16},
                {"ffn_width", 64},
                {"context", 512}}},
              {"data",
               {{"sources", {{{"path", folder.path("books")}}}},
                {"heldout", folder.path("heldout")},
                {"tokens", folder.path("tokens")},
                {"lengths", {{"shortest", 256}, {"longest", 512}}},
                {"tasks", {{"share", 0.5}, {"kinds", {{{"name", "copy"}}, {{"name", "facts"}, {"weight", 2}}}}}}}},
              {"batch_tokens", 1024},
              {"steps", 30},
              {"threads", 1},
              {"precision", "f32"},
              {"schedule", {{"peak", 0.01}, {"warmup_steps", 5}}},
              {"checkpoint", {{"file", folder.path("run.checkpoint")}, {"interval", 2}}},
              {"evaluation", {{"interval", 10}, {"batches", 2}}},
              {"log", folder.path("run.jsonl")},
              {"output", {{"file", folder.path("tiny.gguf")}, {"type", "f32"}}}};
  }
  std::vector<std::string> command(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words{"train", folder.write("run.json", config.dump())};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  std::vector<Json> log() const {
    std::vector<Json> lines;
    std::istringstream in(read_file(folder.path("run.jsonl")));
    for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
    return lines;
  }
  Folder folder;
  Json config;
};

TEST(CliTrain, TrainsAModelThatTheEngineRuns) {
  const TrainingFolder workspace;
  const Result result = run(workspace.command({"--html", workspace.folder.path("curves.html")}));
  ASSERT_EQ(result.code, 0) << result.err;
  int64_t steps = 0;
  std::vector<double> heldout;
  for (const Json& line : workspace.log()) {
    steps += line.contains("loss");
    if (line.contains("heldout")) heldout.push_back(line["heldout"]["books"].get<double>());
  }
  EXPECT_EQ(steps, 30);
  ASSERT_EQ(heldout.size(), 3u);
  EXPECT_LT(heldout[2], heldout[0] - 0.2);
  EXPECT_EQ(json_output({"inspect", workspace.folder.path("tiny.gguf"), "--json"})["architecture"], "llama");
  EXPECT_FALSE(
      output({"run", "-m", workspace.folder.path("tiny.gguf"), "-p", "The", "-n", "8", "--temp", "0"}).empty());
  const std::string page = read_file(workspace.folder.path("curves.html"));
  EXPECT_THAT(page, testing::HasSubstr("\"steps\":30"));
  EXPECT_THAT(page, testing::Not(testing::HasSubstr("http://")));
}

TEST(CliTrain, TenKillsDoNotChangeTheWeights) {
  TrainingFolder whole, killed;
  for (TrainingFolder* workspace : {&whole, &killed}) workspace->config["evaluation"]["interval"] = 0;
  ASSERT_EQ(run(whole.command()).code, 0);
  std::mt19937 random(test::seed(7));
  for (int i = 0; i < 10; ++i) {
    Program program(killed.command());
    std::this_thread::sleep_for(std::chrono::milliseconds(100 + random() % 600));
    program.kill(i % 3 == 0 ? SIGTERM : SIGKILL);
    program.finish();
  }
  ASSERT_EQ(run(killed.command()).code, 0);
  EXPECT_EQ(read_file(killed.folder.path("tiny.gguf")), read_file(whole.folder.path("tiny.gguf")));
  int64_t step = 0;
  for (const Json& line : killed.log()) {
    if (!line.contains("loss")) continue;
    EXPECT_EQ(line["step"], ++step);
  }
  EXPECT_EQ(step, 30);
}

TEST(CliTrain, ARunInPartsGivesTheSameWeights) {
  const TrainingFolder whole, parts;
  ASSERT_EQ(run(whole.command()).code, 0);
  ASSERT_EQ(run(parts.command({"--until", "7"})).code, 0);
  EXPECT_EQ(parts.log().back()["step"], 7);
  EXPECT_TRUE(std::filesystem::exists(parts.folder.path("tiny.gguf")));
  ASSERT_EQ(run(parts.command()).code, 0);
  EXPECT_EQ(read_file(parts.folder.path("tiny.gguf")), read_file(whole.folder.path("tiny.gguf")));
}

TEST(CliTrain, SigtermWritesACheckpointThatCanBeExported) {
  TrainingFolder workspace;
  workspace.config["steps"] = 1000000;
  workspace.config["checkpoint"]["interval"] = 0;
  Program program(workspace.command({"--json", "-"}));
  program.wait_for_output();
  program.kill(SIGTERM);
  const Result result = program.finish();
  EXPECT_EQ(result.code, 130) << result.err;
  EXPECT_THAT(result.err, testing::HasSubstr("to continue from"));
  ASSERT_EQ(run(workspace.command({"--export", workspace.folder.path("now.gguf"), "--type", "q8_0"})).code, 0);
  EXPECT_TRUE(std::filesystem::exists(workspace.folder.path("now.gguf")));
}

TEST(CliTrain, AFullDiskPreservesTheLastCheckpoint) {
  TrainingFolder workspace;
  workspace.config["steps"] = 6;
  ASSERT_EQ(run(workspace.command()).code, 0);
  const std::string before = read_file(workspace.folder.path("run.checkpoint"));
  const std::string quoted = "'" + workspace.folder.path("run.json") + "'";
  workspace.command({"--check"});
  const std::string line = "trap '' XFSZ; ulimit -f 40; exec " + program_path() + " train " + quoted +
                           " --set steps=20 --set log=\\\"\\\" 2> '" + workspace.folder.path("err") + "'";
  EXPECT_NE(std::system(line.c_str()), 0);
  EXPECT_THAT(read_file(workspace.folder.path("err")), testing::HasSubstr("run.checkpoint"));
  EXPECT_EQ(read_file(workspace.folder.path("run.checkpoint")), before);
}

/// Expects that the run ends with this error and writes no model.
void expect_rejected(const TrainingFolder& workspace, int code, const std::vector<std::string>& parts,
                     const std::vector<std::string>& more = {}) {
  expect_error(run(workspace.command(more)), code, parts);
  EXPECT_FALSE(std::filesystem::exists(workspace.folder.path("tiny.gguf")));
}

TEST(CliTrain, InvalidConfigsAreNamed) {
  const TrainingFolder workspace;
  expect_rejected(workspace, 2, {"optimizer", "betal1", "beta1"}, {"--set", "optimizer.betal1=0.9"});
  expect_rejected(workspace, 2, {"steps", "an integer"}, {"--set", "steps=many"});
  expect_rejected(workspace, 2, {"--set", "FIELD=VALUE"}, {"--set", "steps"});
  expect_rejected(workspace, 2, {"data.tasks.kinds", "fcats", "facts"},
                  {"--set", "data.tasks.kinds=[{\"name\":\"fcats\"}]"});
  expect_rejected(workspace, 2, {"data.sources is empty"}, {"--set", "data.sources=[]"});
  expect_rejected(workspace, 2, {"new_tokenizer.pieces"}, {"--set", "new_tokenizer.pieces=0"});
  expect_rejected(workspace, 2, {"tasks"}, {"--set", "data.tasks.share=0.9"});
  expect_rejected(workspace, 1, {"--export", "does not exist"}, {"--export", workspace.folder.path("tiny.gguf")});
  expect_error(run({"train"}), 2, {"no config"});
  expect_error(run({"train", workspace.folder.write("bad.json", "{\"steps\": 3,,}")}), 2, {"bad.json", "JSON"});
  expect_error(run({"train", workspace.folder.path("none.json")}), 1, {"none.json"});
}

TEST(CliTrain, InvalidCorporaAreNamed) {
  const TrainingFolder workspace;
  std::filesystem::create_directories(workspace.folder.path("empty"));
  std::filesystem::create_directories(workspace.folder.path("binary"));
  workspace.folder.write("binary/a.txt", std::string("\x7f\x45LF\0\xff\xfe", 7));
  workspace.folder.write("cut.tar.zst", "\x28\xb5\x2f\xfd cut off");
  for (const char* name : {"empty", "binary", "cut.tar.zst", "missing"}) {
    const std::string source = "data.sources=[{\"path\":\"" + workspace.folder.path(name) + "\"}]";
    expect_rejected(workspace, 1, {name}, {"--set", source});
  }
}

TEST(CliTrain, ACheckpointOfAnotherRunIsNotChanged) {
  TrainingFolder workspace;
  workspace.config["steps"] = 6;
  ASSERT_EQ(run(workspace.command()).code, 0);
  const std::string before = read_file(workspace.folder.path("run.checkpoint"));
  expect_error(run(workspace.command({"--set", "seed=8"})), 1, {"run.checkpoint", "seed", "another config"});
  expect_error(run(workspace.command({"--set", "log=" + workspace.folder.write("notes.txt", "my notes\n")})), 1,
               {"notes.txt:1", "log"});
  EXPECT_EQ(read_file(workspace.folder.path("run.checkpoint")), before);
  EXPECT_EQ(read_file(workspace.folder.path("notes.txt")), "my notes\n");
}

#endif

}  // namespace
}  // namespace fathom::test
