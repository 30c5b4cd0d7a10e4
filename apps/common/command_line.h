#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace fathom {

// Wraps CLI11. Its header takes many seconds to compile, so only command_line.cpp includes it. Option names are
// written as in CLI11: "-p,--prompt", or "model" for a positional argument.

/// An option of a command. A handle: copies refer to the same option. Each function returns the option itself.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  /// Sets the name of the value in the help text, such as FILE.
  Option type_name(const std::string& name);
  /// Parsing fails if the option is missing.
  Option required();
  /// Each use of a list option takes one value. The argument after it is then a positional argument.
  Option one_value();
  /// Rejects values that are not listed.
  Option one_of(const std::vector<std::string>& values);
  /// Rejects numbers of 0 or less.
  Option positive();

 private:
  CLI::Option* option_;
};

/// A program or one of its subcommands. A handle, valid as long as its CommandLine. The variables that options
/// write to must outlive CommandLine::parse.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  /// Adds a subcommand.
  Command add_command(const std::string& name, const std::string& description);
  /// Parsing fails unless exactly one subcommand is given.
  void require_command();
  /// Sets the name in the help text.
  void name(const std::string& name);
  /// Sets the text at the end of the help.
  void footer(const std::string& text);
  void add_version_flag(const std::string& flag, const std::string& version, const std::string& help);
  /// Collects all arguments in arguments(), --help included.
  void take_all_arguments();
  std::vector<std::string> arguments() const;
  /// Sets the function that runs after parsing if the command line names this command.
  void callback(std::function<void()> run);

  Option add_flag(const std::string& names, bool& flag, const std::string& help);
  /// Accepts the old name of a flag: sets `flag` and prints a note with the new name. Help does not show it.
  void add_old_flag(const std::string& old_name, const std::string& name, bool& flag);
  Option add_option(const std::string& names, std::string& value, const std::string& help);
  Option add_option(const std::string& names, std::vector<std::string>& values, const std::string& help);
  Option add_option(const std::string& names, int& value, const std::string& help);
  Option add_option(const std::string& names, int64_t& value, const std::string& help);
  /// read: called with the value; throws Error (usage) if the value is invalid.
  Option add_option(const std::string& names, std::function<void(const std::string& text)> read,
                    const std::string& help);
  /// An option that may be repeated and takes one value each time. read: called with each value, in order; throws
  /// Error (usage) if the value is invalid.
  Option add_repeatable_option(const std::string& names, std::function<void(const std::string& text)> read,
                               const std::string& help);

 private:
  CLI::App* app_;
};

/// The command line of a program.
class CommandLine {
 public:
  explicit CommandLine(const std::string& description);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;

  Command program() const { return Command(app_.get()); }
  /// Parses the arguments and runs the callbacks of the commands they name. Returns the text of --help or --version
  /// if one of them is given, otherwise an empty string. Throws Error (usage) for invalid arguments, and any
  /// exception of a callback.
  std::string parse(int argc, char** argv);

 private:
  std::unique_ptr<CLI::App> app_;
};

}  // namespace fathom
