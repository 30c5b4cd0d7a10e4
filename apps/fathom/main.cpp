// The program fathom. Each subcommand has its own file in this folder.
#include "commands.h"
#include "program.h"

namespace fathom {
namespace {

constexpr const char* kExamples = R"(Examples:
  fathom run -f book.txt -p "Question: Who is the captain?"  read a book, then answer a question
  fathom read -f book.txt -o book.ctx                        read once ...
  fathom ask book.ctx -p "Question: Who is the captain?"     ... and ask many times
  fathom score -m model.gguf -f book.txt --window 4k         measure how well a model predicts a text
  fathom methods                                             list all methods

Results go to stdout, everything else to stderr. Sizes may be written 4k, 1m or 8g (k = 1024).
Without -m the model is the file named by $FATHOM_MODEL, otherwise fathom-reader, a small model that is included.
Exit codes: 0 success, 1 failure, 2 usage error, 130 interrupted.
)";

void add_commands(Command program) {
  program.name("fathom");
  program.add_version_flag("--version", "fathom " FATHOM_VERSION, "print the version and exit");
  program.require_command();
  program.footer(kExamples);
  add_run(program);
  add_chat(program);
  add_read(program);
  add_ask(program);
  add_edit(program);
  add_context(program);
  add_cache(program);
  add_serve(program);
  add_retrieve(program);
  add_score(program);
  add_eval(program);
  add_bench(program);
  add_train(program);
  add_datastore(program);
  add_methods(program);
  add_inspect(program);
  add_tokens(program);
  add_logits(program);
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) {
  return fathom::run_program(
      argc, argv, "fathom runs language models on long texts: it continues them and answers questions about them.",
      fathom::add_commands);
}
