// Tests of the format of command-line cases.
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "case_file.h"
#include "text_patterns.h"

namespace fathom::test {
namespace {

constexpr const char* kWhole = R"(# Shows a whole case.
command: fathom run -p "one
    two" -n 4
documents: fathom run -p "one two"
documents: fathom run
needs: jq
stdin:
    first

    third
exit: 2
stdout:
    a <*> b
    <...>
stderr contains:
    fathom: 
file out.txt contains:
    x
)";

TEST(CaseFile, HasTheSectionsOfTheText) {
  const CaseFile test = parse_case("a.txt", kWhole);
  EXPECT_EQ(test.command, "fathom run -p \"one\ntwo\" -n 4");
  EXPECT_EQ(test.documents, (std::vector<std::string>{"fathom run -p \"one two\"", "fathom run"}));
  EXPECT_EQ(test.needs, std::vector<std::string>{"jq"});
  EXPECT_EQ(test.input, "first\n\nthird\n");
  EXPECT_EQ(test.exit_code, 2);
  ASSERT_EQ(test.checks.size(), 3u);
  EXPECT_EQ(test.checks[0].lines, (std::vector<std::string>{"a <*> b", "<...>"}));
  EXPECT_EQ(test.checks[2].source, "out.txt");
  EXPECT_TRUE(test.checks[2].contains);
}

/// Returns the error of a malformed case.
std::string error_of(const std::string& text) {
  try {
    parse_case("a.txt", text);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "no error";
}

TEST(CaseFile, MalformedFilesAreNamedWithTheLine) {
  const struct {
    const char* text;
    const char* where;
    const char* what;
  } kCases[] = {
      {"command: fathom\n", "a.txt:1: ", "expected '# '"},
      {"", "a.txt:1: ", "expected '# '"},
      {"# Shows.\nstdout:\n    a\n", "a.txt:3: ", "'command:'"},
      {"# Shows.\ncommand:\n", "a.txt:2: ", "empty"},
      {"# Shows.\ncommand: fathom\nstdot contains:\n    a\n", "a.txt:3: ", "unknown section 'stdot contains'"},
      {"# Shows.\ncommand: fathom\nstdout:\nnot indented\n", "a.txt:4: ", "indented"},
      {"# Shows.\n    text\n", "a.txt:2: ", "before the first section"},
      {"# Shows.\ncommand: fathom\nstdout:\n    a\nstdout:\n    b\n", "a.txt:5: ", "second section 'stdout:'"},
      {"# Shows.\ncommand: fathom\nexit: two\n", "a.txt:3: ", "'two'"},
      {"# Shows.\ncommand: fathom\nexit: 1\n    more\n", "a.txt:4: ", "same line"},
      {"# Shows.\ncommand: fathom\nneeds: gpu\n", "a.txt:3: ", "'gpu'"},
      {"# Shows.\ncommand: fathom\nstdout: text\n", "a.txt:3: ", "next lines"},
      {"# Shows.\ncommand: fathom\nstdout contains:\n", "a.txt:3: ", "empty"},
      {"# Shows.\ncommand: fathom\nfile:\n    a\n", "a.txt:3: ", "unknown section 'file'"},
      {"# Shows.\ncommand: fathom\nstdout:\n    a\n# comment\n    b\n", "a.txt:5: ", "comment"},
  };
  for (const auto& test : kCases) {
    const std::string error = error_of(test.text);
    EXPECT_TRUE(error.starts_with(test.where)) << error;
    EXPECT_NE(error.find(test.what), std::string::npos) << test.what << " in " << error;
  }
}

CaseOutput printed(const std::string& out, const std::string& err = "", int code = 0) {
  return {code, out, err, "/nonexistent"};
}

TEST(CaseFile, StreamsWithoutASectionAreExpectedToBeEmpty) {
  const CaseFile test = parse_case("a.txt", "# Shows.\ncommand: fathom\n");
  EXPECT_EQ(differences(test, printed("")), "");
  EXPECT_NE(differences(test, printed("text\n")).find("a.txt: stdout (no section: expected empty)"),
            std::string::npos);
  EXPECT_NE(differences(test, printed("", "text\n")).find("a.txt: stderr"), std::string::npos);
  EXPECT_NE(differences(test, printed("", "", 3)).find("expected exit code 0, found 3"), std::string::npos);
}

TEST(CaseFile, DifferencesShowMissingAndUnexpectedLinesInTheirOrder) {
  const CaseFile test =
      parse_case("a.txt", "# Shows.\ncommand: fathom\nstdout:\n    one\n    two <number>\n    three\n");
  EXPECT_EQ(differences(test, printed("one\ntwo 2.5e-3\nthree\n")), "");
  EXPECT_EQ(differences(test, printed("one\ntwo x\nthree\n")),
            "a.txt:3: stdout differs (- expected, + found):\n    one\n  - two <number>\n  + two x\n    three\n"
            "command: fathom\n");
}

TEST(CaseFile, ContainedLinesAndFilesThatAreMissingAreNamed) {
  const CaseFile test =
      parse_case("a.txt", "# Shows.\ncommand: fathom\nstdout contains:\n    b<*>d\n    x\nfile out:\n    a\n");
  const std::string difference = differences(test, printed("abcde\n"));
  EXPECT_NE(difference.find("a.txt:3: stdout lacks:\n  - x\nand holds:\n    abcde\n"), std::string::npos)
      << difference;
  EXPECT_NE(difference.find("a.txt:6: out was not written"), std::string::npos) << difference;
}

TEST(CaseFile, UpdatingKeepsPatternsThatMatchAndTheRestOfTheFile) {
  const std::string text =
      "# Shows.\ncommand: fathom\nexit: 0\nstdout:\n    <*> tokens\n    old\n\n    end\n\nstderr:\n    note\n";
  const CaseOutput found = printed("12 tokens\nnew\n\nend\n", "note\nmore\n\n", 1);
  const std::string updated = updated_case(parse_case("a.txt", text), text, found);
  EXPECT_EQ(updated,
            "# Shows.\ncommand: fathom\nexit: 1\nstdout:\n    <*> tokens\n    new\n\n    end\n\nstderr:\n    note\n"
            "    more\n    <empty>\n");
  EXPECT_EQ(differences(parse_case("a.txt", updated), found), "");
}

TEST(TextPatterns, MatchTextNumbersAndLines) {
  EXPECT_TRUE(matches_line("a<*>c", "abbbc"));
  EXPECT_TRUE(matches_line("<*>ab", "aaab"));
  EXPECT_TRUE(matches_line("<*>", ""));
  EXPECT_FALSE(matches_line("a<*>c", "abcd"));
  EXPECT_TRUE(matches_line("{\"n\":<number>,\"x\":<number>}", "{\"n\":-12,\"x\":1.5e+10}"));
  EXPECT_FALSE(matches_line("<number>", "12 "));
  EXPECT_FALSE(matches_line("<number>", "-"));
  EXPECT_FALSE(matches_line("a<number>", "a"));
  EXPECT_TRUE(matches_line("<empty>", ""));
  EXPECT_TRUE(matches_line("a <no newline>", lines_of("a ")[0]));
  EXPECT_TRUE(contains_line("one\ntwo three\n", "o t<*>e"));
  EXPECT_FALSE(contains_line("one\ntwo\n", "one two"));
  EXPECT_TRUE(compare({"a", "<...>", "z"}, "a\nz\n").same);
  EXPECT_TRUE(compare({"<...>", "z", "<...>"}, "a\nb\nz\n").same);
  EXPECT_FALSE(compare({"a", "<...>", "z"}, "a\nb\n").same);
  EXPECT_FALSE(compare({}, "a\n").same);
}

}  // namespace
}  // namespace fathom::test
