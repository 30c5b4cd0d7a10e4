#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom::test {

/// A command that documentation or help shows.
struct DocumentedCommand {
  std::string text;   // normalised
  std::string where;  // "README.md:12"
};

/// Returns the command with one space between words, without a prompt "$ ", the folder "build/…/bin/" and line
/// continuations.
std::string normalised(std::string_view command);

/// Returns the commands in the code blocks (fenced or indented by four spaces) of a Markdown text: those that start
/// fathom or a script of bench/ or scripts/. Comments after two spaces or # are removed. Commands with placeholders
/// (…, [-f FILE] or words in capitals) are omitted.
std::vector<DocumentedCommand> commands_in_markdown(const std::string& name, std::string_view text);

/// Returns the commands in the examples at the end of a help text.
std::vector<DocumentedCommand> commands_in_help(const std::string& name, std::string_view text);

}  // namespace fathom::test
