#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "paths.h"
#include "program.h"

namespace fathom::test {
namespace {

const std::vector<std::string> kCommands = {"run",  "chat",  "tokens",  "logits", "score",
                                            "eval", "bench", "methods", "inspect"};

TEST(CliUsage, HelpListsEveryCommandAndEachHasHelp) {
  const std::string help = output({"--help"});
  for (const std::string& command : kCommands) {
    EXPECT_NE(help.find("\n  " + command + " "), std::string::npos) << command;
    const std::string own = output({command, "--help"});
    EXPECT_NE(own.find("fathom " + command), std::string::npos) << own;
    EXPECT_NE(own.find("Example"), std::string::npos) << command << " shows no example";
  }
}

TEST(CliUsage, VersionIsOneLine) {
  const std::string version = output({"--version"});
  EXPECT_TRUE(version.starts_with("fathom ")) << version;
  EXPECT_EQ(version.find('\n'), version.size() - 1);
}

TEST(CliUsage, MissingCommandListsTheCommands) { expect_error(run({}), 2, {"no command", "run", "inspect"}); }

TEST(CliUsage, MistypedCommandsGetTheNearestName) {
  expect_error(run({"scoer"}), 2, {"'scoer'", "did you mean score"});
}

TEST(CliUsage, UnknownOptionsAreNamed) {
  expect_error(run({"run", "-p", "a", "--frob"}), 2, {"--frob", "fathom run --help"});
}

TEST(CliUsage, UnknownMethodsAndParametersAreUsageErrors) {
  expect_error(run({"run", "-p", "a", "--attend", "nonesuch:topc=3"}), 2, {"nonesuch", "dense", "window"});
  expect_error(run({"run", "-p", "a", "--attend", "infllm:topc=3"}), 2, {"topc", "did you mean topk"});
  expect_error(run({"run", "-p", "a", "--attend", "windwo"}), 2, {"windwo", "did you mean window"});
  expect_error(run({"run", "-p", "a", "--attend", "window:sizes=3"}), 2, {"sizes", "size"});
  expect_error(run({"run", "-p", "a", "--attend", "window:window=-3"}), 2, {"window must"});
  expect_error(run({"run", "-p", "a", "--cache", "q9"}), 2, {"q9", "bf16"});
  expect_error(run({"run", "-p", "a", "--position", "yarn:factor=x"}), 2, {"factor", "'x'"});
  expect_error(run({"run", "-p", "a", "--sample", "topk"}), 2, {"topk", "did you mean top-k"});
  expect_error(run({"run", "-p", "a", "--temp", "warm"}), 2, {"temperature", "'warm'"});
}

TEST(CliUsage, NumbersOutOfRangeAreUsageErrors) {
  expect_error(run({"run", "-p", "a", "-n", "many"}), 2, {"--tokens", "'many'"});
  expect_error(run({"run", "-p", "a", "-n", "-1"}), 2, {"--tokens"});
  expect_error(run({"run", "-p", "a", "-t", "0"}), 2, {"--threads", "'0'"});
  expect_error(run({"run", "-p", "a", "-t", "1m"}), 2, {"--threads", "'1m'"});
  expect_error(run({"run", "-p", "a", "-c", "0"}), 2, {"--context"});
  expect_error(run({"run", "-p", "a", "--chunk", "0"}), 2, {"--chunk"});
  expect_error(run({"run", "-p", "a", "--seed", "-1"}), 2, {"--seed", "'-1'"});
  expect_error(run({"run", "-p", "a", "--seed", "18446744073709551616"}), 2, {"--seed"});
  expect_error(run({"run", "-p", "a", "--top-p", "1.5"}), 2, {"top-p"});
  expect_error(run({"run", "-p", "a", "--stop", ""}), 2, {"stop string"});
}

TEST(CliUsage, UnreadablePromptsAreErrors) {
  expect_error(run({"run"}), 2, {"-p", "-f"});
  expect_error(run({"run", "-f", "-"}, ""), 1, {"no tokens"});
  expect_error(run({"run", "-f", "/no/such/file", "-p", "a"}), 1, {"/no/such/file", "No such file"});
  expect_error(run({"run", "-f", "/", "-p", "a"}), 1, {"/: ", "directory"});
  expect_error(run({"run", "-f", "-", "-f", "-"}, "text"), 2, {"standard input"});
}

TEST(CliUsage, PromptLongerThanTheContextIsAnErrorWithBothLengths) {
  const auto tokens = std::to_string(std::ranges::count(output({"tokens", "--bos"}, prose(500, 1)), ' ') + 1);
  expect_error(run({"run", "-f", "-", "-c", "20"}, prose(500, 1)), 1, {tokens, "20", "-c"});
}

TEST(CliUsage, ModelIsThatOfTheVariableOrTheDefault) {
  expect_error(run({"inspect"}, "", {{"FATHOM_MODEL", "/no/such.gguf"}}), 1, {"/no/such.gguf"});
  const Result by_default = run({"inspect"}, "", {{"FATHOM_MODEL", ""}});
  EXPECT_EQ(by_default.code, 0) << by_default.err;
  EXPECT_NE(by_default.out.find("fathom-reader"), std::string::npos);
}

TEST(CliUsage, MissingModelIsAnErrorWithARemedy) {
  const Folder folder;  // a copy of the program in an empty folder finds no models
  std::filesystem::create_directories(folder.path("a/b/c"));
  std::filesystem::copy_file(program_path(), folder.path("a/b/c/fathom"));
  const std::string command =
      "cd " + folder.path("a") + " && env -u FATHOM_MODEL b/c/fathom inspect 2> " + folder.path("err");
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 1);
  const std::string err = read_file(folder.path("err"));
  for (const char* part : {"fathom: no model", "-m", "FATHOM_MODEL"})
    EXPECT_NE(err.find(part), std::string::npos) << err;
}

TEST(CliMethods, EveryKindIsListedAndEveryMethodHasAPage) {
  const std::string table = output({"methods"});
  for (const char* kind : {"--attend", "--position", "--cache", "--sample"}) {
    EXPECT_NE(table.find(kind), std::string::npos) << kind;
  }
  EXPECT_NE(output({"methods", "window"}).find("Attention Sinks"), std::string::npos);
  EXPECT_NE(output({"methods", "sample"}).find("typical"), std::string::npos);
}

TEST(CliMethods, JsonHasTheDocumentedFields) {
  std::istringstream lines(output({"methods", "--json"}));
  std::map<std::string, int> kinds;
  for (std::string line; std::getline(lines, line);) {
    const Json method = Json::parse(line);
    ++kinds[method["kind"].text()];
    EXPECT_TRUE(method["exact"].is_boolean());
    for (const char* field : {"name", "needs", "paper", "summary", "time", "memory"}) {
      EXPECT_TRUE(method[field].is_string()) << line;
    }
    for (const Json& parameter : method["parameters"].items()) {
      EXPECT_TRUE(parameter["name"].is_string() && parameter["type"].is_string() &&
                  parameter["summary"].is_string());
      EXPECT_TRUE(parameter["type"] != "int" || parameter["default"].is_null() || parameter["default"].is_number());
    }
  }
  EXPECT_EQ(kinds.size(),
            11);  // attend, position, cache, evict, read, sample, draft, search, constrain, join, task
  const Json window = json_output({"methods", "window", "--json"});
  EXPECT_EQ(window["parameters"][1]["name"], "window");
  EXPECT_EQ(window["parameters"][1]["old_names"][0], "size");
  EXPECT_EQ(window["capabilities"]["works_with_compacted"], true);
  EXPECT_EQ(window["capabilities"]["reads_surprisal"], false);
  EXPECT_EQ(window["parameters"][1]["default"], 1024);
  EXPECT_EQ(window["parameters"][1]["min"], 1);
  EXPECT_EQ(json_output({"methods", "gemfilter", "--json"})["parameters"][0]["default"], -1);
}

TEST(CliMethods, OldParameterNamesWorkWithANote) {
  const auto with = [](const std::string& spec) {
    return run({"run", "-p", "The captain of the", "-n", "4", "--temp", "0", "--attend", spec});
  };
  const Result now = with("window:sink=0,window=2"), before = with("window:sink=0,size=2");
  EXPECT_EQ(before.code, 0);
  EXPECT_EQ(before.out, now.out);
  const std::string note = "fathom: --attend window: 'size' is now 'window'\n";
  EXPECT_EQ(before.err.find(note), before.err.rfind(note));
  EXPECT_NE(before.err.find(note), std::string::npos);
  EXPECT_EQ(now.err.find("is now '"), std::string::npos);
  expect_error(with("window:size=2,window=2"), 2, {"window is given twice"});
}

TEST(CliMethods, UnknownMethodsGetTheNearestName) {
  expect_error(run({"methods", "topp"}), 2, {"'topp'", "did you mean top-p"});
  expect_error(run({"methods", "nothing-like-it"}), 2, {"expected one of attend"});
}

TEST(CliInspect, PrintsShapeVocabularyAndMemory) {
  const Json model = json_output({"inspect", "--json"});
  EXPECT_EQ(model["architecture"], "llama");
  EXPECT_EQ(model["layers"], 4);
  EXPECT_EQ(model["width"], 192);
  EXPECT_EQ(model["heads"], 3);
  EXPECT_EQ(model["kv_heads"], 1);
  EXPECT_EQ(model["vocabulary"], 4096);
  EXPECT_EQ(model["trained_context"], 1024);
  EXPECT_EQ(model["chat_template"], false);
  EXPECT_EQ(model["cache_bytes_per_token"], 4 * 1 * (64 + 64) * 2);
  EXPECT_EQ(model["bytes"], std::filesystem::file_size(default_model()));
  int64_t bytes = 0, tensors = 0;
  for (const auto& type : model["weights"].items())
    bytes += type["bytes"].get<int64_t>(), tensors += type["tensors"].get<int64_t>();
  EXPECT_LT(bytes, model["bytes"].get<double>());
  EXPECT_EQ(json_output({"inspect", "--json", "--tensors"})["tensors"].size(), tensors);
  const std::string page = output({"inspect", default_model(), "--tensors"});
  for (const char* part : {"fathom-seedling", "1 MiB per 1k tokens", "no chat template", "blk.0.attn_q.weight"}) {
    EXPECT_NE(page.find(part), std::string::npos) << part;
  }
}

/// Returns a text with a fact in its middle.
std::string hidden_fact() {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "The horses went down to the river, and nobody said a word.\n";
  text += "The pass key is 4711.\n";
  for (int i = 0; i < 20; ++i) text += "The horses went down to the river, and nobody said a word.\n";
  return text;
}

TEST(CliInspect, AttentionPageShowsTheAttendedPages) {
  const Folder folder;
  const std::string text = folder.write("text.txt", hidden_fact()), page = folder.path("map.html");
  const std::vector<std::string> command = {"inspect", "--attention",     page, "-f", text,
                                            "-p",      "The pass key is", "-n", "4",  "--json"};
  std::vector<std::string> windowed = command;
  windowed.insert(windowed.end(), {"--attend", "window:sink=0,window=100"});
  for (const bool window : {false, true}) {
    const Json map = json_output(window ? windowed : command);
    const int64_t tokens = map["tokens"].get<int64_t>(), pages = (tokens + 63) / 64;
    EXPECT_GT(pages, 10);
    EXPECT_EQ(map["pages"].size(), pages);
    ASSERT_EQ(map["lanes"].size(), 4);
    for (const auto& lane : map["lanes"].items()) {
      double mass = 0, attended = 0;
      for (const Json& share : lane["mass"].items()) mass += share.get<double>();
      for (const Json& count : lane["seen"].items()) attended += count.get<double>();
      EXPECT_NEAR(mass, 1, 0.01);
      EXPECT_EQ(attended, window ? 100 + map["queries"].get<int64_t>() - 1 : tokens);
      EXPECT_EQ(lane["mass"][0] == 0, window);
    }
    std::ostringstream html_text;
    html_text << std::ifstream(page).rdbuf();
    const std::string html = html_text.str();
    EXPECT_NE(html.find("The pass key is 4711"), std::string::npos);
    EXPECT_EQ(html.find("http:"), std::string::npos);
  }
  expect_error(run({"inspect", "--attention", page}), 2, {"nothing to read"});
  expect_error(run({"inspect", "-p", "a"}), 2, {"--attention"});
  expect_error(run({"inspect", "--attention", "/no/such/folder/x.html", "-p", "a"}), 1, {"/no/such/folder"});
}

}  // namespace
}  // namespace fathom::test
