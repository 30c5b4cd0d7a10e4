#include "documented_commands.h"

#include <algorithm>
#include <cctype>
#include <span>

#include "base/error.h"
#include "text_patterns.h"

namespace fathom::test {
namespace {

struct CodeLine {
  std::string text;
  int number = 0;
};
using CodeBlock = std::vector<CodeLine>;

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  return begin == std::string_view::npos ? "" : text.substr(begin, text.find_last_not_of(" \t\r") + 1 - begin);
}

bool starts_with_word(std::string_view text, std::string_view word) {
  return text.starts_with(word) && (text.size() == word.size() || text[word.size()] == ' ');
}

std::string_view without_prompt(std::string_view text) {
  text = trimmed(text);
  return starts_with_word(text, "$") ? trimmed(text.substr(1)) : text;
}

/// Reads the first command of a block: up to a comment or the end of a line that is not continued by a backslash or
/// an open quote.
class CommandReader {
 public:
  explicit CommandReader(std::span<const CodeLine> lines) : lines_(lines) { read(); }

  const std::string& text() const { return text_; }
  size_t lines() const { return taken_; }

  /// Returns the commands that are joined by &&, ||, ; and |.
  std::vector<std::string> parts() const {
    std::vector<std::string> parts(1);
    for (size_t i = 0; i < text_.size(); ++i) {
      const bool joint = !quoted_[i] && (text_[i] == '|' || text_[i] == ';' || text_[i] == '&');
      if (joint) {
        parts.emplace_back();
      } else {
        parts.back() += text_[i];
      }
    }
    return parts;
  }

  /// Returns the words, with a quotation mark in place of each quoted character.
  std::vector<std::string> plain_words() const {
    std::vector<std::string> words(1);
    for (size_t i = 0; i < text_.size(); ++i) {
      if (quoted_[i]) {
        words.back() += '"';
      } else if (std::isspace(static_cast<unsigned char>(text_[i]))) {
        words.emplace_back();
      } else {
        words.back() += text_[i];
      }
    }
    return words;
  }

 private:
  void add(char c) {
    text_ += c;
    quoted_.push_back(quote_ != 0);
  }

  void read() {
    while (taken_ < lines_.size()) {
      const std::string_view line =
          taken_ == 0 ? without_prompt(lines_[0].text) : std::string_view(lines_[taken_].text);
      ++taken_;
      if (!read_line(line)) return;
    }
  }

  /// Returns false at the end of the command.
  bool read_line(std::string_view line) {
    for (size_t i = 0; i < line.size(); ++i) {
      const char c = line[i];
      if (quote_ == 0 && starts_comment(line, i)) return false;
      if (c == '\\' && quote_ != '\'') {
        if (i + 1 == line.size()) {
          add(' ');
          return true;
        }
        add(c);
        add(line[++i]);
        continue;
      }
      const bool opens = quote_ == 0 && (c == '"' || c == '\'');
      if (opens) quote_ = c;
      add(c);
      if (!opens && c == quote_) quote_ = 0;
    }
    if (quote_ != 0) add('\n');
    return quote_ != 0;
  }

  static bool starts_comment(std::string_view line, size_t at) {
    if (line[at] != ' ') return false;
    const size_t next = line.find_first_not_of(' ', at);
    if (next == std::string_view::npos) return false;
    if (line[next] == '#') return true;
    return next >= at + 2 && std::string_view("-\\|&<>;\"'$").find(line[next]) == std::string_view::npos;
  }

  std::span<const CodeLine> lines_;
  std::string text_;
  std::vector<bool> quoted_;  // for each character of text_
  char quote_ = 0;            // the open quote; 0: none
  size_t taken_ = 0;
};

/// Removes the folders of built programs.
std::string without_folders(std::string text) {
  constexpr std::string_view kBuild = "build/", kBin = "/bin/";
  for (size_t begin = 0; (begin = text.find(kBuild, begin)) != std::string::npos; ++begin) {
    const size_t bin = text.find(kBin, begin);
    const bool word_start = begin == 0 || text[begin - 1] == ' ';
    if (word_start && bin < text.find(' ', begin)) text.erase(begin, bin + kBin.size() - begin);
  }
  return text;
}

/// Removes variables that are set before the command.
std::string_view without_variables(std::string_view part) {
  const auto named = [](unsigned char c) { return std::isalnum(c) || c == '_'; };
  for (;;) {
    part = trimmed(part);
    const std::string_view word = part.substr(0, part.find(' '));
    const size_t equals = word.find('=');
    if (equals == std::string_view::npos || equals == 0 || !std::ranges::all_of(word.substr(0, equals), named))
      return part;
    part.remove_prefix(word.size());
  }
}

bool starts_program(std::string_view text) {
  const std::string plain = without_folders(std::string(without_variables(text)));
  const std::string_view part = plain;
  if (part.starts_with("bench/") || part.starts_with("scripts/")) return true;
  const bool version = part.size() > 7 && std::isdigit(static_cast<unsigned char>(part[7]));  // "fathom 1.0"
  return starts_with_word(part, "fathom") && part != "fathom" && !version;
}

/// Whether the word is in capitals, such as MODEL, OUT.f32 and FIELD=VALUE.
bool is_placeholder(std::string word) {
  word = word.substr(0, word.find('.') == std::string::npos ? word.size() : word.find('.'));
  if (word.empty() || word == "README" || word.find("FATHOM_") == 0) return false;
  return std::isupper(static_cast<unsigned char>(word[0])) && std::ranges::all_of(word, [](unsigned char c) {
           return std::isupper(c) || std::isdigit(c) || c == '_' || c == '=';
         });
}

bool has_placeholder(const CommandReader& command) {
  if (command.text().find("…") != std::string::npos || command.text().find("[-") != std::string::npos) return true;
  const std::vector<std::string> words = command.plain_words();
  return std::ranges::any_of(words, [](const std::string& word) { return word == "..." || is_placeholder(word); });
}

std::vector<DocumentedCommand> commands_in(const std::string& name, const CodeBlock& block) {
  const bool prompts =
      std::ranges::any_of(block, [](const CodeLine& line) { return starts_with_word(trimmed(line.text), "$"); });
  std::vector<DocumentedCommand> commands;
  for (size_t i = 0; i < block.size();) {
    const CommandReader command{std::span<const CodeLine>(block).subspan(i)};
    const bool input = !prompts || starts_with_word(trimmed(block[i].text), "$");
    if (!input || !std::ranges::any_of(command.parts(), starts_program)) {
      ++i;
      continue;
    }
    if (!has_placeholder(command))
      commands.push_back({normalised(command.text()), concat(name, ":", block[i].number)});
    i += command.lines();
  }
  return commands;
}

/// Returns the code blocks of a Markdown text.
std::vector<CodeBlock> code_blocks(std::string_view text) {
  std::vector<CodeBlock> blocks(1);
  std::string fence;
  int number = 0;
  for (const std::string& line : lines_of(text)) {
    ++number;
    const std::string_view content = trimmed(line);
    const bool marks = content.starts_with("```") || content.starts_with("~~~");
    if (marks && (fence.empty() || content.starts_with(fence))) {
      fence = fence.empty() ? std::string(content.substr(0, 3)) : "";
      blocks.emplace_back();
    } else if (!fence.empty() || line.starts_with("    ") || line.starts_with('\t')) {
      blocks.back().push_back({line, number});
    } else if (!content.empty()) {
      blocks.emplace_back();
    }
  }
  return blocks;
}

}  // namespace

std::string normalised(std::string_view command) {
  std::string text;
  const std::string_view rest = without_prompt(command);
  for (size_t i = 0; i < rest.size(); ++i) {
    const bool continued = rest[i] == '\\' && i + 1 < rest.size() && rest[i + 1] == '\n';
    const bool space = continued || std::isspace(static_cast<unsigned char>(rest[i]));
    if (!space) {
      text += rest[i];
    } else if (!text.empty() && !text.ends_with(' ')) {
      text += ' ';
    }
  }
  return without_folders(text.substr(0, text.find_last_not_of(' ') + 1));
}

std::vector<DocumentedCommand> commands_in_markdown(const std::string& name, std::string_view text) {
  std::vector<DocumentedCommand> all;
  for (const CodeBlock& block : code_blocks(text))
    for (DocumentedCommand& command : commands_in(name, block)) all.push_back(std::move(command));
  return all;
}

std::vector<DocumentedCommand> commands_in_help(const std::string& name, std::string_view text) {
  CodeBlock examples;
  bool inside = false;
  int number = 0;
  for (const std::string& line : lines_of(text)) {
    ++number;
    if (line == "Example:" || line == "Examples:") {
      inside = true;
    } else if (!line.starts_with("  ")) {
      inside = false;
    } else if (inside) {
      examples.push_back({line, number});
    }
  }
  return commands_in(name, examples);
}

}  // namespace fathom::test
