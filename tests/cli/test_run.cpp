#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <string>

#include "paths.h"
#include "program.h"

namespace fathom::test {
namespace {

const std::string kFact = "The magic word of Anna is lantern.\n";
const std::string kQuestion = "Question: What is the magic word of Anna?\nAnswer: The magic word of Anna is";

TEST(CliRun, AnswersFromAFileBeforeThePrompt) {
  const Folder folder;
  const std::string file = folder.write("fact.txt", kFact);
  EXPECT_EQ(output({"run", "-f", file, "-p", kQuestion, "--stop", "\n"}), " lantern.\n");
}

TEST(CliRun, SeveralFilesAndStandardInputAreReadInOrder) {
  const Folder folder;
  const std::string end = folder.write("end.txt", kQuestion.substr(10));
  const std::string straight = output({"run", "-p", kFact + kQuestion, "-n", "20", "--json"});
  const std::string parts =
      output({"run", "-f", folder.write("fact.txt", kFact), "-f", "-", "-f", end, "-n", "20", "--json"},
             kQuestion.substr(0, 10));
  EXPECT_EQ(Json::parse(parts)["text"], Json::parse(straight)["text"]);
  EXPECT_EQ(Json::parse(parts)["prompt_tokens"], Json::parse(straight)["prompt_tokens"]);
}

TEST(CliRun, JsonHasTheDocumentedFields) {
  const Json line = json_output({"run", "-p", kFact + kQuestion, "-n", "8", "--ignore-eos", "--json"});
  EXPECT_TRUE(line["text"].is_string());
  EXPECT_EQ(line["prompt_tokens"], std::ranges::count(output({"tokens", "--bos"}, kFact + kQuestion), ' ') + 1);
  EXPECT_EQ(line["generated_tokens"], 8);
  EXPECT_TRUE(line["seed"].is_number_integer());
  EXPECT_EQ(line["stop"], "length");
  EXPECT_GT(line["prefill_tokens_per_second"].get<double>(), 0);
  EXPECT_GT(line["decode_tokens_per_second"].get<double>(), 0);
}

TEST(CliRun, TextEndsBeforeAStopString) {
  const Json line = json_output({"run", "-p", kFact + kQuestion, "--stop", "zebra", "--stop", "tern.", "--json"});
  EXPECT_EQ(line["text"], " lan");
  EXPECT_EQ(line["stop"], "string");
}

TEST(CliRun, StdoutHasOnlyTheText) {
  const std::string text = json_output({"run", "-p", kFact + kQuestion, "-n", "30", "--json"})["text"].text();
  const Result result = run({"run", "-p", kFact + kQuestion, "-n", "30"});
  EXPECT_EQ(result.out, text.ends_with('\n') ? text : text + "\n");
  EXPECT_EQ(result.err, "");
}

TEST(CliRun, TooSmallMemoryBudgetIsNamed) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += kFact;
  const Result small = run({"run", "-p", text, "-n", "1", "--memory", "64k"});
  EXPECT_EQ(small.code, 1);
  EXPECT_NE(small.err.find("64 KiB (--memory)"), std::string::npos) << small.err;
  EXPECT_EQ(output({"run", "-p", kFact + kQuestion, "--stop", "\n", "--memory", "1g", "--checkpoints", "0"}),
            " lantern.\n");
  EXPECT_EQ(run({"run", "-p", text, "--memory", "0"}).code, 2);
}

TEST(CliRun, VerbosePrintsCountsOnStderr) {
  const Result result = run({"run", "-p", kFact, "-n", "5", "--ignore-eos", "--verbose"});
  EXPECT_NE(result.err.find("wrote 5"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("length"), std::string::npos) << result.err;
}

TEST(CliRun, ReportsTheShareOfAttendedKeysAndMethodsWithoutEffect) {
  const std::vector<std::string> plain = {"run", "-p", kFact + kQuestion, "-n", "5", "--json"};
  const auto with = [&](const std::string& attend) {
    std::vector<std::string> arguments = plain;
    arguments.insert(arguments.end(), {"--attend", attend});
    return run(arguments);
  };
  EXPECT_EQ(json_output(plain)["keys_attended_share"], 1);
  EXPECT_EQ(run(plain).err, "");
  const Result some = with("window:sink=1,window=4"), all = with("quest");
  EXPECT_LT(Json::parse(some.out)["keys_attended_share"].get<double>(), 0.5);
  EXPECT_EQ(some.err, "");
  EXPECT_NE(all.err.find("quest attended to all tokens"), std::string::npos) << all.err;
}

TEST(CliRun, NoTokensToGenerateGivesNoText) {
  EXPECT_EQ(json_output({"run", "-p", kFact, "-n", "0", "--json"})["text"], "");
}

TEST(CliRun, SameSeedGivesTheSameText) {
  const std::vector<std::string> sampled = {"run", "-p", kFact, "-n", "40", "--temp", "0.9", "--seed"};
  const auto with_seed = [&](const std::string& seed) {
    std::vector<std::string> arguments = sampled;
    arguments.push_back(seed);
    return output(arguments);
  };
  EXPECT_EQ(with_seed("7"), with_seed("7"));
  EXPECT_NE(with_seed("7"), with_seed("8"));
}

TEST(CliRun, DrawnSeedIsPrintedAndReproducesTheText) {
  const Result drawn = run({"run", "-p", kFact, "-n", "30", "--temp", "1"});
  ASSERT_TRUE(drawn.err.starts_with("fathom: seed ")) << drawn.err;
  const std::string seed = std::to_string(std::stoull(drawn.err.substr(13)));
  EXPECT_EQ(output({"run", "-p", kFact, "-n", "30", "--temp", "1", "--seed", seed}), drawn.out);
}

TEST(CliRun, ShortOptionsEqualTheirSamplingSteps) {
  const std::vector<std::string> base = {"run", "-p", kFact, "-n", "40", "--seed", "3"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), base.begin(), base.end());
    return output(more);
  };
  const std::string steps = with({"--sample", "repetition:penalty=1.2", "--sample", "top-k:k=20", "--sample",
                                  "top-p:p=0.9", "--sample", "min-p:p=0.02", "--sample", "temperature:t=1.5"});
  EXPECT_EQ(
      with({"--temp", "1.5", "--min-p", "0.02", "--top-p", "0.9", "--top-k", "20", "--repeat-penalty", "1.2"}),
      steps);
  EXPECT_NE(with({}), steps);
}

TEST(CliRun, TemperatureZeroAndPenaltiesAloneAreGreedy) {
  const std::string greedy = output({"run", "-p", kFact, "-n", "20"});
  EXPECT_EQ(output({"run", "-p", kFact, "-n", "20", "--temp", "0"}), greedy);
  EXPECT_EQ(output({"run", "-p", kFact, "-n", "20", "--repeat-penalty", "1"}), greedy);
  EXPECT_NE(output({"run", "-p", kFact, "-n", "20", "--repeat-penalty", "5"}), greedy);
}

TEST(CliRun, SpecialTokensInThePromptAreTextWithoutTheOption) {
  const int64_t plain = json_output({"run", "-p", "</s>a", "-n", "1", "--json"})["prompt_tokens"].get<int64_t>();
  const int64_t special =
      json_output({"run", "-p", "</s>a", "-n", "1", "--special", "--json"})["prompt_tokens"].get<int64_t>();
  EXPECT_GT(plain, special);
}

TEST(CliRun, BosInThePromptIsNotDoubled) {
  EXPECT_EQ(json_output({"run", "-p", "<s>a", "-n", "1", "--special", "--json"})["prompt_tokens"],
            json_output({"run", "-p", "a", "-n", "1", "--json"})["prompt_tokens"]);
}

TEST(CliRun, TextThatIsNotUtf8IsRead) {
  const Folder folder;
  const std::string file = folder.write("bytes", std::string("\xff\xfe\x00\xc3(", 5) + kFact);
  const Json line = json_output({"run", "-f", file, "-p", kQuestion, "-n", "6", "--json"});
  EXPECT_NE(line["text"].text().find("lantern"), std::string::npos) << line.dump();
}

TEST(CliRun, JsonIsValidWhenTheModelGeneratesBytes) {
  for (int seed = 0; seed < 5; ++seed) {
    json_output({"run", "-p", "a", "-n", "60", "--temp", "50", "--seed", std::to_string(seed), "--json"});
  }
}

TEST(CliRun, MethodsAreTakenFromTheCommandLine) {
  const std::string plain = output({"run", "-p", kFact + kQuestion, "-n", "12"});
  EXPECT_EQ(output({"run", "-p", kFact + kQuestion, "-n", "12", "--attend", "window:window=4k"}), plain);
  EXPECT_NE(output({"run", "-p", kFact + kQuestion, "-n", "12", "--attend", "window:window=2,sink=0"}), plain);
  EXPECT_NE(output({"run", "-p", kFact + kQuestion, "-n", "12", "--position", "linear:factor=8"}), plain);
}

TEST(CliRun, ContextLimitEndsTheTextAsLength) {
  const Json line = json_output({"run", "-p", "one two", "-c", "12", "--ignore-eos", "--json"});
  EXPECT_EQ(line["stop"], "length");
  EXPECT_LE(line["generated_tokens"].get<int>() + line["prompt_tokens"].get<int>(), 13);
}

TEST(CliRun, MemoryGrowsByPagesOnly) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the measurement would include the sanitizer's memory";
#endif
  struct Use {
    int64_t tokens, bytes;
  };
  const auto use_of = [](size_t bytes) {
    Program program({"run", "-f", "-", "-n", "1", "--json"});
    program.send(prose(bytes, 1));
    const Result result = program.finish(240);
    return Use{Json::parse(result.out)["prompt_tokens"].get<int64_t>(), result.peak_bytes};
  };
  const Use few = use_of(9000), many = use_of(52000);
  const int64_t more = many.tokens - few.tokens;
  EXPECT_GT(more, 9000);
  EXPECT_LT(few.bytes, int64_t{64} << 20);
  EXPECT_LT(many.bytes - few.bytes, more * 1024 + (int64_t{8} << 20));  // 1 KiB of keys and values per token
}

TEST(CliRun, CtrlCInPrefillExits130) {
  Program program({"run", "-f", "-", "-n", "5"});
  program.send(prose(2000000, 1));  // takes minutes; once it is sent, the program is running
  program.close_input();
  program.kill(SIGINT);
  expect_error(program.finish(10), 130, {"interrupted"});
}

TEST(CliRun, CtrlCWhileGeneratingPreservesTheOutput) {
  Program program({"run", "-p", kFact, "-n", "1m", "--ignore-eos"});
  program.wait_for_output();
  program.kill(SIGINT);
  const Result result = program.finish(10);
  expect_error(result, 130, {"interrupted"});
  EXPECT_GT(result.out.size(), 0);
}

TEST(CliRun, ClosedPipeEndsTheProgramWithoutAMessage) {
  const Folder folder;
  const std::string command = std::string("(") + program_path() + " run -m " + default_model() +
                              " -p a -n 100k --ignore-eos 2> " + folder.path("err") + ") | head -c 1 > " +
                              folder.path("out");
  EXPECT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(read_file(folder.path("err")), "");
  EXPECT_EQ(std::filesystem::file_size(folder.path("out")), 1);
}

TEST(CliRun, FullDiskOfStdoutIsAnError) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "this system has no /dev/full";
  const Folder folder;
  for (const std::string command : {"run -p a -n 5", "methods", "--help", "inspect"}) {
    const std::string line = std::string("FATHOM_MODEL=") + default_model() + " " + program_path() + " " + command +
                             " > /dev/full 2> " + folder.path("err");
    EXPECT_EQ(WEXITSTATUS(std::system(line.c_str())), 1) << command;
    EXPECT_EQ(read_file(folder.path("err")), "fathom: standard output: cannot write: No space left on device\n")
        << command;
  }
}

}  // namespace
}  // namespace fathom::test
