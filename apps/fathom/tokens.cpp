// fathom tokens: text to token ids and back.
#include "base/error.h"
#include "base/format.h"
#include "commands.h"
#include "console.h"
#include "options.h"
#include "token_list.h"
#include "tokens/tokenizer.h"

namespace fathom {
namespace {

struct TokensOptions {
  std::string model;
  bool decode = false, special = false, bos = false;
};

void run_tokens(const TokensOptions& options) {
  const Tokenizer tokenizer(Vocabulary::read(Gguf::open(find_model(options.model))));
  const std::string input = read_input("-");
  if (options.decode) {
    write_out(tokenizer.decode(parse_token_list(input, input_name("-")), options.special));
    return;
  }
  EncodeOptions encoding;
  encoding.add_bos_eos = options.bos;
  encoding.parse_special = options.special;
  std::string line;
  for (const int32_t id : tokenizer.encode(input, encoding)) {
    if (!line.empty()) line += ' ';
    line += std::to_string(id);
  }
  write_out(line + "\n");
}

}  // namespace

void add_tokens(Command program) {
  auto o = std::make_shared<TokensOptions>();
  Command command = program.add_command("tokens", "Turn text on stdin into token ids, or back");
  add_model_option(command, o->model);
  command.add_flag("--decode", o->decode, "read ids, separated by white space, and write their text");
  command.add_flag("--special", o->special,
                   "special tokens in the text, as </s>, mean themselves; --decode shows them");
  command.add_flag("--bos", o->bos, "with the tokens that the vocabulary puts before and behind a text");
  command.footer(R"(Examples:
  echo "Call me Ishmael." | fathom tokens
  fathom tokens < any.bin | fathom tokens --decode | cmp - any.bin
)");
  command.callback([o] { run_tokens(*o); });
}

}  // namespace fathom
