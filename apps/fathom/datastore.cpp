// fathom datastore: reads texts and writes the hidden state and the next token of each token, for --knn.
#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "commands.h"
#include "console.h"
#include "decode/knn_lm.h"
#include "loaded_model.h"

namespace fathom {
namespace {

struct StoreOptions {
  std::string model, out;
  int64_t threads = 0, memory = int64_t{4} << 30;
  std::vector<std::string> files;
  bool json = false;
};

void build(const StoreOptions& options) {
  CommonOptions common;
  common.model = options.model;
  common.threads = options.threads;
  std::vector<std::string> texts;
  for (const std::string& file : options.files) texts.push_back(read_input(file));
  const LoadedModel loaded(common);
  std::vector<std::vector<int32_t>> tokens;
  int64_t total = 0;
  for (const std::string& text : texts) {
    tokens.push_back(encode_prompt(*loaded.tokenizer, text, false));
    total += std::max<int64_t>(0, std::ssize(tokens.back()) - 1);
  }
  DatastoreBuildOptions build;
  build.memory = options.memory;
  build.stop = &interrupt_token();
  Progress progress("reading", "tokens", total);
  build.progress = [&](int64_t done) { progress.update(done); };
  const Datastore store = build_datastore(*loaded.engine, tokens, build);
  store.save(options.out);
  if (options.json) {
    write_out(Json{{"file", options.out}, {"entries", store.entries()}, {"lists", store.lists()}}.dump() + "\n");
  } else {
    write_out(concat("wrote ", store.entries(), " entries to ", options.out, "\n"));
  }
}

}  // namespace

void add_datastore(Command program) {
  auto o = std::make_shared<StoreOptions>();
  Command command = program.add_command(
      "datastore", "Write a datastore of texts, for run --knn: states and the tokens that follow");
  command.add_option("-f,--file", o->files, "text to store; repeatable; - is standard input")
      .type_name("FILE")
      .one_value()
      .required();
  command.add_option("-o,--output", o->out, "file to write").type_name("FILE").required();
  add_model_option(command, o->model);
  add_size_option(command, "-t,--threads", o->threads, 1,
                  "threads; more is faster, up to the number of cores [all cores]", 1024);
  add_size_option(command, "--memory", o->memory, 1, "maximum bytes for the states, such as 8g [4g]");
  command.add_flag("--json", o->json, "print one JSON object with the number of entries");
  command.footer(
      R"(Each token of the texts is an entry: the model's hidden state, and the token that follows. `fathom run --knn` mixes
the model's next-token distribution with that of the nearest entries (kNN-LM). This predicts texts like the stored ones
better; it does not make generated texts better (Wang et al., 2023).

Example:
  fathom datastore -f book.txt -o book.knn
)");
  command.callback([o] { build(*o); });
}

}  // namespace fathom
