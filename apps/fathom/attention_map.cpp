#include "attention_map.h"

#include <filesystem>
#include <span>

#include "base/error.h"
#include "base/format.h"
#include "base/write_file.h"
#include "console.h"
#include "decode/generate.h"
#include "eval/attention_page.h"
#include "loaded_model.h"

namespace fathom {

void add_attention_options(Command command, AttentionMapOptions& o) {
  command
      .add_option("--attention", o.html,
                  "read a text, generate an answer, and write an HTML page that shows what the answer attended to")
      .type_name("PAGE");
  command
      .add_option("-f,--file", o.files,
                  "with --attention: text to read before the prompt; repeatable; - is standard input")
      .type_name("FILE")
      .one_value();
  command.add_option("-p,--prompt", o.prompt, "with --attention: the prompt").type_name("TEXT");
  add_size_option(command, "-n,--tokens", o.tokens, 1,
                  "with --attention: maximum number of tokens to generate; the answer ends at a line break [32]");
  add_method_options(command, o.common.methods);
}

void map_attention(const AttentionMapOptions& options) {
  std::string text;
  for (const std::string& file : options.files) text += read_input(file);
  text += options.prompt;
  if (text.empty()) fail_usage("--attention: nothing to read: give a prompt (-p TEXT) or a file (-f FILE)");
  const LoadedModel loaded(options.common);
  Session session = loaded.session(options.common);
  const std::vector<int32_t> prompt = encode_prompt(*loaded.tokenizer, text, false);
  if (prompt.empty()) fail("the prompt has no tokens");
  // the first query of the answer is the last token of the prompt
  const Sequence& sequence = session.sequence();
  AttentionMass mass(std::vector<char>(sequence.layers(), 1), sequence.max_heads(), std::ssize(prompt) - 1);
  session.watch(&mass);
  read_tokens(session, prompt);
  Sampler sampler;
  GenerateOptions generation;
  generation.max_tokens = options.tokens;
  generation.stop = {"\n"};
  const Generated answer = generate(session, *loaded.tokenizer, sampler, prompt, generation);
  if (answer.stop == StopReason::kInterrupted) throw Error("interrupted", Error::Kind::kInterrupted);
  eval::AttentionPicture picture{std::filesystem::path(options.common.model_path()).stem().string(), answer.text,
                                 prompt};
  picture.tokens.insert(picture.tokens.end(), answer.tokens.begin(), answer.tokens.end());
  picture.tokens.resize(session.length());  // the last generated token was not read
  const Json json = eval::attention_json(picture, mass, session, *loaded.tokenizer);
  if (options.json) write_out(json.dump() + "\n");
  const std::string page = eval::attention_page(json);
  write_file(options.html, std::as_bytes(std::span(page)));
  if (!options.json) write_out(answer.text + "\n");
  note(concat("attention page written to ", options.html));
}

}  // namespace fathom
