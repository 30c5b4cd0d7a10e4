#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom::test {

/// An expectation of a case: the content of stdout, stderr or a file.
struct Check {
  std::string source;     // "stdout", "stderr" or the name of a file
  bool contains = false;  // true: each line occurs in the text; false: the lines are the whole text
  std::vector<std::string> lines;
  int line = 0;               // of the header in the case file, from 1; 0: a stream without a section
  size_t begin = 0, end = 0;  // range of `lines` in the case file, from 0
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
  int exit_line = 0;  // line of "exit:", from 1; 0: none
  std::vector<Check> checks;
};

/// Parses a case. Throws std::runtime_error with the file, the line and the expected text.
CaseFile parse_case(const std::string& path, std::string_view text);

/// The result of a command.
struct CaseOutput {
  int exit_code = 0;
  std::string out, err;
  std::string folder;  // the folder in which it ran, with its files
};

/// Returns the differences from the expectations as readable text; empty: none.
std::string differences(const CaseFile& expected, const CaseOutput& found);

/// Returns the text of the case file with its exit code and its exact sections replaced by the found ones. Patterns
/// that still match are kept.
std::string updated_case(const CaseFile& expected, std::string_view text, const CaseOutput& found);

}  // namespace fathom::test
