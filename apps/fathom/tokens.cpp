// fathom tokens: converts text to token ids and back.
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
  Command command = program.add_command("tokens", "Convert text on stdin to token ids, or ids to text");
  add_model_option(command, o->model);
  command.add_flag("--decode", o->decode, "convert ids, separated by white space, to text");
  command.add_flag("--special", o->special,
                   "parse special tokens such as </s> in the text; with --decode: print them");
  command.add_flag("--bos", o->bos, "add the start and end tokens that the vocabulary prescribes, such as BOS");
  command.footer(R"(Examples:
  echo "Call me Ishmael." | fathom tokens
  fathom tokens < any.bin | fathom tokens --decode | cmp - any.bin
)");
  command.callback([o] { run_tokens(*o); });
}

}  // namespace fathom
