// fathom: the command line. Each subcommand has a file of its own; here they are gathered, and errors become exit
// codes.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <new>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/spec.h"
#include "commands.h"
#include "console.h"

namespace fathom {
namespace {

enum ExitCode { kGood = 0, kFailed = 1, kUsage = 2, kInterrupted = 130 };

constexpr const char* kExamples = R"(Examples:
  fathom run -f book.txt -p "Question: Who is the captain?"  read a book, then answer
  fathom score -m model.gguf -f book.txt --window 4k         how well a model predicts a text
  fathom methods                                             every method there is, and what it costs

Results go to stdout, everything else to stderr. Sizes may be written 4k or 1m (k = 1024).
Without -m the model is $FATHOM_MODEL, or else fathom-seedling, a small one that comes along.
Exit codes: 0 good, 1 failed, 2 wrong usage, 130 interrupted.
)";

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
  if (commands.empty()) return report(missing_command(app, first), kUsage);
  return report(concat(error.what(), " (see fathom ", commands.front()->get_name(), " --help)"), kUsage);
}

void add_commands(CLI::App& app) {
  app.name("fathom");
  app.set_version_flag("--version", "fathom " FATHOM_VERSION, "print the version and leave");
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  app.get_formatter()->column_width(34);
  app.footer(kExamples);
  add_run(app);
  add_chat(app);
  add_score(app);
  add_eval(app);
  add_bench(app);
  add_methods(app);
  add_inspect(app);
  add_tokens(app);
  add_logits(app);
}

ExitCode run(int argc, char** argv) {
  CLI::App app("fathom reads long texts with language models, and continues or answers them.");
  try {
    add_commands(app);
    install_interrupt_handler();
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      return finish_parsing(app, error, argc > 1 ? argv[1] : "");
    }
    finish_out();
    return kGood;
  } catch (const Error& error) {
    return report(error);
  } catch (const std::bad_alloc&) {
    return report("out of memory", kFailed);
  } catch (const std::exception& error) {
    return report(error.what(), kFailed);
  }
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_DFL);  // when the reader of our output leaves, so do we, quietly
  return fathom::run(argc, argv);
}
