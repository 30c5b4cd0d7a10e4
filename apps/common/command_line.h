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

// A thin layer over CLI11, whose header takes many seconds to compile: only command_line.cpp includes it. Names of
// options are written as there: "-p,--prompt", or "model" for a positional argument.

/// One option of a command. A handle: copies refer to the same option, and each function returns it.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  /// The name of the value in the help text.
  Option type_name(const std::string& name);
  Option required();
  /// Each use of a list option takes one value, so that what follows is a positional argument.
  Option one_value();
  /// Adds the variable's present value to the help text.
  Option show_default();
  /// Values are rejected unless listed.
  Option one_of(const std::vector<std::string>& values);
  /// Numbers are rejected unless above 0.
  Option positive();
  /// Leaves the option out of the help text: for an old name that still works.
  Option hidden();

 private:
  CLI::Option* option_;
};

/// A program or one of its subcommands. A handle, valid as long as the CommandLine it belongs to. Options write to
/// variables that must outlive the parsing.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  Command add_command(const std::string& name, const std::string& description);
  /// Exactly one subcommand must be given.
  void require_command();
  void name(const std::string& name);
  /// Text at the end of the help.
  void footer(const std::string& text);
  void add_version_flag(const std::string& flag, const std::string& version, const std::string& help);
  /// Has no --help; all arguments are collected in arguments().
  void take_all_arguments();
  std::vector<std::string> arguments() const;
  /// Is run when the command line has been parsed and names this command.
  void callback(std::function<void()> run);

  Option add_flag(const std::string& names, bool& flag, const std::string& help);
  Option add_option(const std::string& names, std::string& value, const std::string& help);
  Option add_option(const std::string& names, std::vector<std::string>& values, const std::string& help);
  Option add_option(const std::string& names, int& value, const std::string& help);
  Option add_option(const std::string& names, int64_t& value, const std::string& help);
  /// read: is called with the value, throws Error (usage) if it is wrong.
  Option add_option(const std::string& names, std::function<void(const std::string& text)> read,
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
  /// Parses the arguments and runs the callbacks of the commands they name. Returns the text to print if they ask
  /// for help or the version, otherwise an empty string. Throws Error (usage) if they are wrong, and what callbacks
  /// throw.
  std::string parse(int argc, char** argv);

 private:
  std::unique_ptr<CLI::App> app_;
};

}  // namespace fathom
