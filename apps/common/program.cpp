#include "program.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <new>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/spec.h"
#include "console.h"

namespace fathom {
namespace {

enum ExitCode { kGood = 0, kFailed = 1, kUsage = 2, kInterrupted = 130 };

ExitCode report(std::string text, ExitCode code) {
  std::ranges::replace(text, '\n', ' ');
  std::fprintf(stderr, "fathom: %s\n", text.c_str());
  return code;
}

ExitCode report(const Error& error) {
  switch (error.kind()) {
    case Error::Kind::kUsage:
      return report(error.what(), kUsage);
    case Error::Kind::kInterrupted:
      return report(error.what(), kInterrupted);
    case Error::Kind::kFailed:
      break;
  }
  return report(error.what(), kFailed);
}

/// What to say when no command was found; first: the first word behind the program's name, if any.
std::string missing_command(const CLI::App& app, const std::string& first) {
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands({})) known.push_back(command->get_name());
  if (first.empty()) return concat("no command given. Known: ", comma_list(known), " (see fathom --help)");
  const std::vector<std::string> nearest = nearest_names(first, known);
  return concat("no command is named ", quote(first), "; ",
                nearest.empty() ? "known: " + comma_list(known) : "did you mean " + comma_list(nearest) + "?");
}

/// The command line was not understood, or asked for help or the version.
ExitCode finish_parsing(const CLI::App& app, const CLI::ParseError& error, const std::string& first) {
  if (dynamic_cast<const CLI::CallForHelp*>(&error)) {
    write_out(app.help());
    return kGood;
  }
  if (dynamic_cast<const CLI::CallForVersion*>(&error)) {
    write_out(std::string(error.what()) + "\n");
    return kGood;
  }
  const auto commands = app.get_subcommands();
  if (commands.empty() && app.get_require_subcommand_min() > 0) return report(missing_command(app, first), kUsage);
  const std::string command = commands.empty() ? app.get_name() : "fathom " + commands.front()->get_name();
  return report(concat(error.what(), " (see ", command, " --help)"), kUsage);
}

ExitCode run(int argc, char** argv, CLI::App& app) {
  install_interrupt_handler();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return finish_parsing(app, error, argc > 1 ? argv[1] : "");
  }
  finish_out();
  return kGood;
}

}  // namespace

int run_program(int argc, char** argv, const char* description, void (*add_commands)(CLI::App& app)) {
  std::signal(SIGPIPE, SIG_DFL);  // when the reader of our output leaves, so do we, quietly
  try {
    CLI::App app(description);
    app.failure_message(CLI::FailureMessage::simple);
    app.get_formatter()->column_width(34);
    add_commands(app);
    return run(argc, argv, app);
  } catch (const Error& error) {
    return report(error);
  } catch (const std::bad_alloc&) {
    return report("out of memory", kFailed);
  } catch (const std::exception& error) {
    return report(error.what(), kFailed);
  }
}

}  // namespace fathom
