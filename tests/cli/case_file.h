#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom::test {

/// One expectation of a case: what stdout, stderr or a file holds.
struct Check {
  std::string source;     // "stdout", "stderr" or the name of a file
  bool contains = false;  // each line is found somewhere in the text, instead of being the text
  std::vector<std::string> lines;
  int line = 0;               // of the header in the case file, from 1; 0 for a stream without a section
  size_t begin = 0, end = 0;  // lines of the case file that hold `lines`, from 0
};

/// A command-line case, read from a text file: sections with a header at the start of a line, their text indented
/// by four spaces. docs/contributing.md has the format.
struct CaseFile {
  std::string path;
  std::string command;
  std::vector<std::string> documents;  // documented commands that this case represents
  std::vector<std::string> needs;      // "trainer", "no-trainer", "jq"
  std::string input;                   // stdin
  int exit_code = 0;
  int exit_line = 0;  // of "exit:", from 1; 0 if there is none
  std::vector<Check> checks;
};

/// Throws std::runtime_error with the file, the line and what was expected.
CaseFile parse_case(const std::string& path, std::string_view text);

/// What a command printed.
struct CaseOutput {
  int exit_code = 0;
  std::string out, err;
  std::string folder;  // in which it ran, with the files that it made
};

/// Returns what differs from the expectations, for a person to read; empty if nothing does.
std::string differences(const CaseFile& expected, const CaseOutput& found);

/// Returns the text of the case file with its exit code and its exact sections changed to what was found. Patterns
/// that still match are kept.
std::string updated_case(const CaseFile& expected, std::string_view text, const CaseOutput& found);

}  // namespace fathom::test
