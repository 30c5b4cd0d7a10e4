// The program fathom. Each subcommand is a file of this folder.
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

void add_commands(Command program) {
  program.name("fathom");
  program.add_version_flag("--version", "fathom " FATHOM_VERSION, "print the version and leave");
  program.require_command();
  program.footer(kExamples);
  add_run(program);
  add_chat(program);
  add_score(program);
  add_eval(program);
  add_bench(program);
  add_train(program);
  add_methods(program);
  add_inspect(program);
  add_tokens(program);
  add_logits(program);
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) {
  return fathom::run_program(argc, argv,
                             "fathom reads long texts with language models, and continues or answers them.",
                             fathom::add_commands);
}
