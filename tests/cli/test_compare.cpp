// Tests bench/compare with a script in place of llama-bench.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>

#include "paths.h"
#include "program.h"

namespace fathom::test {
namespace {

/// Writes a script that answers --help as llama-bench does, with the options `more`, reports 10 tokens per second,
/// and appends its arguments to `log`.
std::string fake_llama_bench(const Folder& folder, const std::string& more) {
  const std::string path = folder.write("llama-bench",
                                        "#!/bin/bash\n"
                                        "if [[ $1 == --help ]]; then echo '--n-prompt <n> " +
                                            more +
                                            "'; exit; fi\n"
                                            "echo \"$*\" >>" +
                                            folder.path("log") +
                                            "\n"
                                            "echo '[{\"avg_ts\": 10.0,'\n"
                                            "echo '  \"n_gen\": 0 }]'\n");
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  return path;
}

struct CompareResult {
  int code;
  std::string text;  // stdout and stderr
};

CompareResult compare(const std::string& arguments) {
  const std::string command =
      source_path("bench/compare") + " --fathom " + program_path() + " -t 1 --rounds 1 " + arguments + " 2>&1";
  CompareResult outcome{};
  FILE* pipe = ::popen(command.c_str(), "r");
  for (int c = 0; (c = std::fgetc(pipe)) != EOF;) outcome.text += static_cast<char>(c);
  outcome.code = WEXITSTATUS(::pclose(pipe));
  return outcome;
}

TEST(BenchCompare, TableHasALinePerTestAndRatiosForTestsOfThePeer) {
  const Folder folder;
  const std::string tests = " --prefill 8 --depth 0,64 --decode 2 " + default_model();
  const CompareResult depth = compare("--llama-bench " + fake_llama_bench(folder, "-d, --n-depth <n>") + tests);
  EXPECT_EQ(depth.code, 0) << depth.text;
  const std::string log = read_file(folder.path("log"));
  for (const char* arguments : {"-p 8 -n 0\n", "-p 0 -n 2\n", "-p 8 -n 0 -d 64\n", "-p 0 -n 2 -d 64\n"}) {
    EXPECT_NE(log.find(arguments), std::string::npos) << arguments << " in " << log;
  }
  for (const char* line :
       {"\nprefill        8       0        10.00 ", "\ndecode         2      64        10.00 "}) {
    EXPECT_NE(depth.text.find(line), std::string::npos) << line << " in " << depth.text;
  }
}

TEST(BenchCompare, PeersThatOnlyDecodeAtDepthAreSupported) {
  const Folder folder;
  const CompareResult outcome = compare("--llama-bench " + fake_llama_bench(folder, "-gp <pp,tg>") +
                                        " --prefill 8 --depth 64 --decode 2 " + default_model());
  EXPECT_EQ(outcome.code, 0) << outcome.text;
  EXPECT_NE(read_file(folder.path("log")).find("-p 0 -n 0 -gp 64,2\n"), std::string::npos);
  EXPECT_NE(outcome.text.find("\nprefill        8      64            - "), std::string::npos) << outcome.text;
}

TEST(BenchCompare, ErrorsSayWhatIsMissing) {
  const Folder folder;
  const std::string peer = "--llama-bench " + fake_llama_bench(folder, "");
  const std::string not_a_program = folder.write("text", "");
  const struct {
    std::string arguments;
    int code;
    const char* text;
  } kCases[] = {
      {"", 2, "usage: bench/compare"},
      {peer + " nothing.gguf", 1, "no model file nothing.gguf"},
      {"--llama-bench nowhere " + default_model(), 1, "there is no nowhere"},
      {"--llama-bench " + not_a_program + " " + default_model(), 1, "is not a program"},
      {peer + " --prefill 4q " + default_model(), 2, "'4q'"},
      {peer + " --unknown 1 " + default_model(), 2, "--unknown"},
      {peer + " --fathom-args --bad --decode 0 --prefill 8 --depth 0 " + default_model(), 1, "fathom failed"},
      {"--llama-bench /bin/false " + default_model(), 1, "as a llama-bench does"},
  };
  for (const auto& [arguments, code, text] : kCases) {
    const CompareResult outcome = compare(arguments);
    EXPECT_EQ(outcome.code, code) << arguments << ": " << outcome.text;
    EXPECT_NE(outcome.text.find(text), std::string::npos) << arguments << ": " << outcome.text;
  }
}

}  // namespace
}  // namespace fathom::test
