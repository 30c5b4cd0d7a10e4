#include "command_line.h"

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/format.h"
#include "base/spec.h"
#include "console.h"

namespace fathom {
namespace {

constexpr size_t kHelpColumn = 34;   // column at which option descriptions begin
constexpr const char* kHidden = "";  // CLI11's group of options that help does not show

/// CLI11's formatter, without the empty line that it prints for the group of hidden options.
class HelpFormatter final : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override {
    std::string text = CLI::Formatter::make_help(app, std::move(name), mode);
    for (size_t at; (at = text.find("\n\n\n")) != std::string::npos;) text.erase(at, 1);
    return text;
  }
};

/// Returns the error text for a missing or unknown command. first: the first argument; empty: no arguments.
std::string missing_command(const CLI::App& app, const std::string& first) {
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands({})) known.push_back(command->get_name());
  if (first.empty()) return concat("no command given; expected one of ", comma_list(known), " (see fathom --help)");
  const std::vector<std::string> nearest = nearest_names(first, known);
  return concat(
      "unknown command ", quote(first), "; ",
      nearest.empty() ? "expected one of " + comma_list(known) : "did you mean " + comma_list(nearest) + "?");
}

[[noreturn]] void fail_parsing(const CLI::App& app, const CLI::ParseError& error, const std::string& first) {
  const auto commands = app.get_subcommands();
  if (commands.empty() && app.get_require_subcommand_min() > 0) fail_usage(missing_command(app, first));
  const std::string command = commands.empty() ? app.get_name() : "fathom " + commands.front()->get_name();
  fail_usage(error.what(), " (see ", command, " --help)");
}

}  // namespace

Option Option::type_name(const std::string& name) {
  option_->type_name(name);
  return *this;
}

Option Option::required() {
  option_->required();
  return *this;
}

Option Option::one_value() {
  option_->allow_extra_args(false);
  return *this;
}

Option Option::one_of(const std::vector<std::string>& values) {
  option_->check(CLI::IsMember(values));
  return *this;
}

Option Option::positive() {
  option_->check(CLI::PositiveNumber);
  return *this;
}

Command Command::add_command(const std::string& name, const std::string& description) {
  return Command(app_->add_subcommand(name, description));
}

void Command::require_command() { app_->require_subcommand(1); }
void Command::name(const std::string& name) { app_->name(name); }
void Command::footer(const std::string& text) { app_->footer(text); }

void Command::add_version_flag(const std::string& flag, const std::string& version, const std::string& help) {
  app_->set_version_flag(flag, version, help);
}

void Command::take_all_arguments() {
  app_->prefix_command();
  app_->set_help_flag();
}

std::vector<std::string> Command::arguments() const { return app_->remaining(); }
void Command::callback(std::function<void()> run) { app_->callback(std::move(run)); }

Option Command::add_flag(const std::string& names, bool& flag, const std::string& help) {
  return Option(app_->add_flag(names, flag, help));
}
void Command::add_old_flag(const std::string& old_name, const std::string& name, bool& flag) {
  const auto set = [old_name, name, &flag] {
    note(concat(quote(old_name), " is now ", quote(name)));
    flag = true;
  };
  app_->add_flag_callback(old_name, set)->group(kHidden);
}
Option Command::add_option(const std::string& names, std::string& value, const std::string& help) {
  return Option(app_->add_option(names, value, help));
}
Option Command::add_option(const std::string& names, std::vector<std::string>& values, const std::string& help) {
  return Option(app_->add_option(names, values, help));
}
Option Command::add_option(const std::string& names, int& value, const std::string& help) {
  return Option(app_->add_option(names, value, help));
}
Option Command::add_option(const std::string& names, int64_t& value, const std::string& help) {
  return Option(app_->add_option(names, value, help));
}
Option Command::add_option(const std::string& names, std::function<void(const std::string& text)> read,
                           const std::string& help) {
  return Option(app_->add_option_function<std::string>(names, std::move(read), help));
}

Option Command::add_repeatable_option(const std::string& names, std::function<void(const std::string& text)> read,
                                      const std::string& help) {
  const auto read_all = [read = std::move(read)](const std::vector<std::string>& values) {
    for (const std::string& value : values) read(value);
  };
  return Option(app_->add_option_function<std::vector<std::string>>(names, read_all, help)).one_value();
}

CommandLine::CommandLine(const std::string& description) : app_(std::make_unique<CLI::App>(description)) {
  auto formatter = std::make_shared<HelpFormatter>();
  formatter->column_width(kHelpColumn);
  app_->formatter(formatter);  // subcommands inherit it
}

CommandLine::~CommandLine() = default;

std::string CommandLine::parse(int argc, char** argv) {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return app_->help();
  } catch (const CLI::CallForVersion& version) {
    return std::string(version.what()) + "\n";
  } catch (const CLI::ParseError& error) {
    fail_parsing(*app_, error, argc > 1 ? argv[1] : "");
  }
  return "";
}

}  // namespace fathom
