// fathom: the command line. Each subcommand has a file of its own; here they are gathered.
#include "commands.h"
#include "program.h"

namespace fathom {
namespace {

constexpr const char* kExamples = R"(Examples:
  fathom run -f book.txt -p "Question: Who is the captain?"  read a book, then answer
  fathom score -m model.gguf -f book.txt --window 4k         how well a model predicts a text
  fathom methods                                             every method there is, and what it costs

Results go to stdout, everything else to stderr. Sizes may be written 4k or 1m (k = 1024).
Without -m the model is $FATHOM_MODEL, or else fathom-reader, a small one that comes along.
Exit codes: 0 good, 1 failed, 2 wrong usage, 130 interrupted.
)";

void add_commands(CLI::App& app) {
  app.name("fathom");
  app.set_version_flag("--version", "fathom " FATHOM_VERSION, "print the version and leave");
  app.require_subcommand(1);
  app.footer(kExamples);
  add_run(app);
  add_chat(app);
  add_score(app);
  add_eval(app);
  add_bench(app);
  add_train(app);
  add_methods(app);
  add_inspect(app);
  add_tokens(app);
  add_logits(app);
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) {
  return fathom::run_program(argc, argv,
                             "fathom reads long texts with language models, and continues or answers them.",
                             fathom::add_commands);
}
