#include "case_file.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>

#include "base/error.h"
#include "base/format.h"
#include "program.h"
#include "text_patterns.h"

namespace fathom::test {
namespace {

constexpr std::string_view kIndent = "    ";
constexpr const char* kSections =
    "command, documents, needs, stdin, exit, stdout, stdout contains, stderr, stderr contains, file NAME, "
    "file NAME contains";

std::vector<std::string> raw_lines(std::string_view text) {
  std::vector<std::string> lines;
  std::istringstream in{std::string(text)};
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

bool blank(std::string_view text) { return text.find_first_not_of(" \t\r") == std::string_view::npos; }

struct Section {
  std::string header, value;  // before and after the colon
  std::vector<std::string> text;
  int line = 0;               // of the header, from 1
  size_t begin = 0, end = 0;  // lines of the text, from 0
};

class CaseParser {
 public:
  CaseParser(const std::string& path, std::string_view text) : lines_(raw_lines(text)) { case_.path = path; }

  CaseFile parse() {
    if (lines_.empty() || !lines_[0].starts_with("# "))
      fail_at(1, "expected '# ' and a line that says what the case shows");
    for (const Section& section : sections()) take(section);
    if (case_.command.empty())
      fail_at(static_cast<int>(lines_.size()), "expected a section 'command:', found none");
    for (const char* stream : {"stdout", "stderr"}) {
      const bool checked =
          std::ranges::any_of(case_.checks, [&](const Check& check) { return check.source == stream; });
      if (!checked) case_.checks.push_back({.source = stream, .lines = {}});
    }
    return case_;
  }

 private:
  [[noreturn]] void fail_at(int line, const std::string& what) const {
    throw std::runtime_error(concat(case_.path, ":", line, ": ", what));
  }

  std::vector<Section> sections() const {
    std::vector<Section> sections;
    for (size_t i = 0; i < lines_.size(); ++i) {
      const std::string& line = lines_[i];
      const int number = static_cast<int>(i) + 1;
      if (line.starts_with('#')) continue;
      if (line.starts_with(kIndent) || blank(line)) {
        if (sections.empty()) {
          if (!blank(line)) fail_at(number, "text before the first section");
        } else if (!blank(line)) {
          add_text(sections.back(), i);
        }
        continue;
      }
      const size_t colon = line.find(':');
      if (colon == std::string::npos)
        fail_at(number,
                concat("expected a section (", kSections, ") with a colon, or text indented by four spaces"));
      const size_t value = std::min(line.find_first_not_of(' ', colon + 1), line.size());
      sections.push_back({line.substr(0, colon), line.substr(value), {}, number, i + 1, i + 1});
    }
    return sections;
  }

  /// Adds line i and the blank lines before it.
  void add_text(Section& section, size_t i) const {
    for (size_t j = section.end; j < i; ++j) {
      if (lines_[j].starts_with('#')) fail_at(static_cast<int>(j) + 1, "a comment within the text of a section");
      section.text.emplace_back();
    }
    section.text.push_back(lines_[i].substr(kIndent.size()));
    section.end = i + 1;
  }

  void take(const Section& section) {
    const std::string& header = section.header;
    if (header != "documents" && !taken_.insert(header).second)
      fail_at(section.line, concat("a second section '", header, ":'"));
    if (header == "command") {
      case_.command = shell_text(section);
    } else if (header == "documents") {
      case_.documents.push_back(shell_text(section));
    } else if (header == "needs") {
      take_needs(section);
    } else if (header == "exit") {
      take_exit(section);
    } else if (header == "stdin") {
      case_.input = joined(text_of(section));
      for (size_t at; (at = case_.input.find("<empty>\n")) != std::string::npos;) case_.input.erase(at, 7);
    } else {
      take_check(section);
    }
  }

  std::string shell_text(const Section& section) const {
    std::string text = section.value;
    for (const std::string& line : section.text) text += (text.empty() ? "" : "\n") + line;
    if (blank(text)) fail_at(section.line, concat("'", section.header, ":' is empty"));
    return text;
  }

  void no_text(const Section& section) const {
    if (!section.text.empty())
      fail_at(section.line + 1, concat("'", section.header, ":' has its value on the same line, and no text"));
  }

  const std::vector<std::string>& text_of(const Section& section) const {
    if (!section.value.empty())
      fail_at(section.line, concat("expected nothing behind '", section.header,
                                   ":'; its text is on the next lines, indented by four spaces"));
    return section.text;
  }

  void take_needs(const Section& section) {
    no_text(section);
    std::istringstream words(section.value);
    for (std::string word; words >> word;) {
      if (word != "trainer" && word != "no-trainer" && word != "jq")
        fail_at(section.line, concat("'needs:' knows trainer, no-trainer and jq, found ", quote(word)));
      case_.needs.push_back(word);
    }
  }

  void take_exit(const Section& section) {
    no_text(section);
    const char* end = section.value.data() + section.value.size();
    const auto parsed = std::from_chars(section.value.data(), end, case_.exit_code);
    if (parsed.ec != std::errc() || parsed.ptr != end)
      fail_at(section.line, concat("'exit:' expects a number, found ", quote(section.value)));
    case_.exit_line = section.line;
  }

  void take_check(const Section& section) {
    constexpr std::string_view kContains = " contains", kFile = "file ";
    Check check;
    std::string_view source = section.header;
    check.contains = source.ends_with(kContains);
    if (check.contains) source.remove_suffix(kContains.size());
    const bool file = source.starts_with(kFile) && source.size() > kFile.size();
    if (file) source.remove_prefix(kFile.size());
    if ((!file && source != "stdout" && source != "stderr") || source.find(' ') != std::string_view::npos)
      fail_at(section.line, concat("unknown section ", quote(section.header), "; known: ", kSections));
    check.source = source;
    check.lines = text_of(section);
    if (check.contains && check.lines.empty()) fail_at(section.line, concat("'", section.header, ":' is empty"));
    check.line = section.line;
    check.begin = section.begin;
    check.end = section.end;
    case_.checks.push_back(check);
  }

  std::vector<std::string> lines_;
  CaseFile case_;
  std::set<std::string> taken_;
};

/// Returns a stream or file of the output; nullopt if the command did not write the file.
std::optional<std::string> text_of(const Check& check, const CaseOutput& found) {
  if (check.source == "stdout") return found.out;
  if (check.source == "stderr") return found.err;
  const std::string path = found.folder + "/" + check.source;
  if (!std::filesystem::exists(path)) return std::nullopt;
  return read_file(path);
}

std::string indented(std::string_view text) {
  std::string all;
  for (const std::string& line : lines_of(text)) all += concat("    ", line, "\n");
  return all.empty() ? "    (nothing)\n" : all;
}

std::string difference(const CaseFile& expected, const Check& check, const CaseOutput& found) {
  const std::string where = check.line ? concat(expected.path, ":", check.line, ": ", check.source)
                                       : concat(expected.path, ": ", check.source, " (no section: expected empty)");
  const std::optional<std::string> text = text_of(check, found);
  if (!text) return where + " was not written\n";
  if (!check.contains) {
    const Comparison comparison = compare(check.lines, *text);
    return comparison.same ? "" : concat(where, " differs (- expected, + found):\n", comparison.difference);
  }
  std::string missing;
  for (const std::string& line : check.lines)
    if (!blank(line) && !contains_line(*text, line)) missing += concat("  - ", line, "\n");
  return missing.empty() ? "" : concat(where, " lacks:\n", missing, "and holds:\n", indented(*text));
}

}  // namespace

CaseFile parse_case(const std::string& path, std::string_view text) { return CaseParser(path, text).parse(); }

std::string differences(const CaseFile& expected, const CaseOutput& found) {
  std::string all;
  if (found.exit_code != expected.exit_code)
    all += concat(expected.path, ": expected exit code ", expected.exit_code, ", found ", found.exit_code, "\n");
  for (const Check& check : expected.checks) all += difference(expected, check, found);
  const bool shown = std::ranges::any_of(expected.checks, [&](const Check& check) {
    return check.source == "stderr" && !difference(expected, check, found).empty();
  });
  if (!all.empty() && !shown && !found.err.empty()) all += "stderr was:\n" + indented(found.err);
  return all.empty() ? "" : concat(all, "command: ", expected.command, "\n");
}

std::string updated_case(const CaseFile& expected, std::string_view text, const CaseOutput& found) {
  std::vector<std::string> lines = raw_lines(text);
  if (expected.exit_line) lines[expected.exit_line - 1] = concat("exit: ", found.exit_code);
  std::vector<Check> checks = expected.checks;
  std::ranges::sort(checks, std::greater(),
                    &Check::begin);  // from the end, so that earlier line numbers remain valid
  for (const Check& check : checks) {
    const std::optional<std::string> now = text_of(check, found);
    if (check.line == 0 || check.contains || !now) continue;
    std::vector<std::string> replacement = compare(check.lines, *now).updated;
    for (std::string& line : replacement) line = line.empty() ? std::string() : std::string(kIndent) + line;
    if (!replacement.empty() && replacement.back().empty()) replacement.back() = std::string(kIndent) + "<empty>";
    lines.erase(lines.begin() + static_cast<ptrdiff_t>(check.begin),
                lines.begin() + static_cast<ptrdiff_t>(check.end));
    lines.insert(lines.begin() + static_cast<ptrdiff_t>(check.begin), replacement.begin(), replacement.end());
  }
  return joined(lines);
}

}  // namespace fathom::test
