// Tests that every command in documentation and help is run by a case.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "cases.h"
#include "documented_commands.h"
#include "paths.h"
#include "program.h"
#include "text_patterns.h"

namespace fathom::test {
namespace {

constexpr const char* kNotRun = "tests/cli/cases/not-run.txt";

std::vector<std::string> texts(const std::vector<DocumentedCommand>& commands) {
  std::vector<std::string> texts;
  for (const DocumentedCommand& command : commands) texts.push_back(command.text);
  return texts;
}

TEST(DocumentedCommands, AreTakenFromCodeBlocksWithoutPromptsAndComments) {
  const std::string text = R"(# Title
fathom run in prose

    fathom run -m model.gguf -p "Question: who's there?
    Answer:"   -n 64   # a comment with "quotes
    fathom methods          all methods
    cat log.txt | build/release/bin/fathom run -f - --stop "a  b"

```console
$ fathom score -f a.txt \
    --json
fathom output that is no command
$ FATHOM_ISA=avx2 fathom bench --prefill 8
```
- item
  ```
  bench/compare model.gguf
  scripts/setup --train && scripts/build train      # once
  fathom: error
  ls fathom
  ```
)";
  const std::vector<DocumentedCommand> commands = commands_in_markdown("a.md", text);
  EXPECT_EQ(texts(commands),
            (std::vector<std::string>{"fathom run -m model.gguf -p \"Question: who's there? Answer:\" -n 64",
                                      "fathom methods", "cat log.txt | fathom run -f - --stop \"a b\"",
                                      "fathom score -f a.txt --json", "FATHOM_ISA=avx2 fathom bench --prefill 8",
                                      "bench/compare model.gguf", "scripts/setup --train && scripts/build train"}));
  EXPECT_EQ(commands[0].where, "a.md:4");
  EXPECT_EQ(commands[2].where, "a.md:7");
  EXPECT_EQ(commands[5].where, "a.md:17");
}

TEST(DocumentedCommands, WithPlaceholdersAreLeftOut) {
  const std::string text = R"(
    fathom run     -m MODEL [-f FILE]... [-p PROMPT]
    fathom chat    -m MODEL
    fathom logits  --tokens FILE -o OUT.f32  raw rows
    fathom eval needle --attend …
    fathom train run.json --set FIELD=VALUE
    bench/selectors quality OUT
    fathom run -p "A" -n 4
)";
  EXPECT_EQ(texts(commands_in_markdown("a.md", text)), std::vector<std::string>{"fathom run -p \"A\" -n 4"});
}

TEST(DocumentedCommands, OfHelpAreItsExamples) {
  const std::string help =
      "Usage: fathom x\n  fathom no\n\nExamples:\n  fathom x -p \"a\"  does it\n\nfathom more\n";
  const std::vector<DocumentedCommand> commands = commands_in_help("fathom x --help", help);
  EXPECT_EQ(texts(commands), std::vector<std::string>{"fathom x -p \"a\""});
  EXPECT_EQ(commands[0].where, "fathom x --help:5");
}

/// Returns the commands of all user documentation and help texts.
std::vector<DocumentedCommand> documented_commands() {
  std::vector<std::string> files = {"README.md", "docs/results/README.md", "models/README.md"};
  for (const char* folder : {"docs", "docs/howto"}) {
    if (!std::filesystem::exists(source_path(folder))) continue;
    for (const auto& entry : std::filesystem::directory_iterator(source_path(folder)))
      if (entry.path().extension() == ".md")
        files.push_back(std::string(folder) + "/" + entry.path().filename().string());
  }
  std::ranges::sort(files);
  std::vector<DocumentedCommand> all;
  const auto add = [&](std::vector<DocumentedCommand> commands) {
    all.insert(all.end(), commands.begin(), commands.end());
  };
  for (const std::string& file : files)
    if (std::filesystem::exists(source_path(file))) add(commands_in_markdown(file, read_file(source_path(file))));
  const std::string help = output({"--help"});
  add(commands_in_help("fathom --help", help));
  for (const std::string& line : lines_of(help.substr(help.find("\nSubcommands:\n") + 1))) {
    if (line.empty()) break;
    if (!line.starts_with("  ")) continue;
    const std::string command = line.substr(2, line.find(' ', 2) - 2);
    const Result own = run({command, "--help"});
    if (own.code == 0) add(commands_in_help("fathom " + command + " --help", own.out));
  }
  return all;
}

/// Returns the patterns of commands that no case runs. Each is a line of not-run.txt, followed by an indented
/// reason.
std::vector<std::string> not_run() {
  std::vector<std::string> patterns;
  int number = 0;
  bool reason = true;
  for (const std::string& line : lines_of(read_file(source_path(kNotRun)))) {
    ++number;
    if (line.empty() || line.starts_with('#')) continue;
    if (!line.starts_with(' ')) patterns.push_back(line);
    EXPECT_TRUE(line.starts_with(' ') || reason) << kNotRun << ":" << number - 1 << ": the reason is missing";
    reason = line.starts_with(' ');
  }
  EXPECT_TRUE(reason) << kNotRun << ":" << number << ": the reason is missing";
  return patterns;
}

TEST(CliDocumentation, EveryDocumentedCommandIsACaseOrListedAsNotRun) {
  std::set<std::string> covered;
  for (const std::string& name : case_names()) {
    const CaseFile test = read_case(name);
    covered.insert(normalised(test.command));
    for (const std::string& command : test.documents) covered.insert(normalised(command));
  }
  const std::vector<std::string> patterns = not_run();
  std::string missing;
  for (const DocumentedCommand& command : documented_commands()) {
    const bool listed = std::ranges::any_of(
        patterns, [&](const std::string& pattern) { return matches_line(pattern, command.text); });
    if (!listed && !covered.contains(command.text)) missing += concat(command.where, ": ", command.text, "\n");
  }
  if (!missing.empty())
    ADD_FAILURE() << "documented, but in no case of " << kCases << " as 'command:' or 'documents:', nor in "
                  << kNotRun << ":\n"
                  << missing;
}

TEST(CliDocumentation, CasesNameOnlyCommandsThatAreDocumented) {
  std::set<std::string> documented;
  for (const DocumentedCommand& command : documented_commands()) documented.insert(command.text);
  std::string stale;
  for (const std::string& name : case_names()) {
    const CaseFile test = read_case(name);
    if (!missing_need(test).empty()) continue;  // its help may not be there either
    for (const std::string& command : test.documents)
      if (!documented.contains(normalised(command))) stale += concat(test.path, ": ", normalised(command), "\n");
  }
  if (!stale.empty()) ADD_FAILURE() << "'documents:' lines of commands that no documentation shows:\n" << stale;
}

TEST(Documentation, CodeBlocksEqualTheExamples) {
  const std::pair<const char*, const char*> shown[] = {
      {"docs/howto/write-a-selector.md", "examples/selector/strided.cpp"},
      {"docs/howto/embed-the-library.md", "examples/answer/answer.cpp"},
      {"docs/howto/embed-the-library.md", "examples/answer/CMakeLists.txt"}};
  for (const auto& [page, example] : shown)
    EXPECT_NE(read_file(source_path(page)).find(read_file(source_path(example))), std::string::npos)
        << page << " does not show " << example << " as it is";
}

}  // namespace
}  // namespace fathom::test
