// fathom run: reads files and a prompt, and continues them.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "commands.h"
#include "console.h"
#include "context/methods.h"
#include "decode/generate.h"
#include "dialogue.h"
#include "loaded_model.h"

namespace fathom {
namespace {

struct RunOptions {
  CommonOptions common;
  SamplingOptions sampling;
  std::vector<std::string> files;
  std::string prompt, system, chat_template;
  std::vector<std::string> stop;
  int64_t tokens = 256;
  bool chat = false, ignore_eos = false, special = false, json = false, verbose = false;
};

std::string read_files(const RunOptions& options) {
  if (std::ranges::count(options.files, "-") > 1) fail_usage("-f -: standard input can be read only once");
  std::string text;
  for (const std::string& file : options.files) text += read_input(file);
  return text;
}

/// What of a text is answered from.
std::string kept_text(const Reader& reader, const std::string& text, const LoadedModel& loaded,
                      const RunOptions& options) {
  const int64_t trained = loaded.model->config().trained_context;
  const int64_t window = options.common.context > 0 ? std::min(options.common.context, trained) : trained;
  // parts of it are read again with each window
  Progress progress("reading parts", "tokens", std::ssize(loaded.tokenizer->encode(text)) * 3 / 2);
  return reader.read(text, options.prompt,
                     {[&](int layers) { return loaded.session(options.common, layers); }, *loaded.tokenizer, window,
                      [&](int64_t tokens) {
                        progress.update(tokens);
                        throw_if_interrupted();
                      }});
}

/// The prompt's tokens: of the text as it is, or as a user's message in the model's form.
std::vector<int32_t> encode(const LoadedModel& loaded, const std::string& text, const RunOptions& options) {
  if (!options.chat) return encode_prompt(*loaded.tokenizer, text, options.special);
  std::vector<ChatMessage> messages;
  if (!options.system.empty()) messages.push_back({"system", options.system});
  messages.push_back({"user", text});
  const auto chat_template = open_chat_template(loaded, options.chat_template);
  return encode_prompt(*loaded.tokenizer, chat_template->render(messages, true), true);
}

/// A method that made no difference is told of, so that nobody takes its figures for its own.
void note_idle_method(const CommonOptions& options, const AttentionCount& count) {
  if (options.methods.attend == "dense" || count.attended < count.visible) return;
  note(concat("--attend ", options.methods.attend, " left nothing out: all of so short a text fits its budget"));
}

void print_json(const Generated& result, int64_t prompt_tokens, double prefill_seconds, const AttentionCount& count,
                uint64_t seed) {
  const Json line = {{"text", result.text},
                     {"prompt_tokens", prompt_tokens},
                     {"generated_tokens", result.tokens.size()},
                     {"seed", seed},
                     {"stop", name(result.stop)},
                     {"prefill_tokens_per_second", rate(prompt_tokens, prefill_seconds)},
                     {"decode_tokens_per_second", rate(result.steps, result.seconds)},
                     {"keys_attended_share", count.attended_share()}};
  write_out(line.dump() + "\n");
}

void print_summary(const Generated& result, int64_t prompt_tokens, double prefill_seconds,
                   const AttentionCount& count) {
  note(concat("read ", prompt_tokens, " tokens in ", format_seconds(prefill_seconds), " (",
              format_size(rate(prompt_tokens, prefill_seconds)), " tokens/s), wrote ", result.tokens.size(), " (",
              format_size(rate(result.steps, result.seconds)), " tokens/s), saw ",
              std::llround(100 * count.attended_share()), " % of the keys, stopped by ", name(result.stop)));
}

void run(const RunOptions& options) {
  if (!options.chat && !(options.system.empty() && options.chat_template.empty()))
    fail_usage("-s and --template have no meaning without --chat");
  if (options.files.empty() && options.prompt.empty())
    fail_usage("nothing to read: give a prompt (-p) or a file (-f)");
  const auto reader = read_methods().make(options.common.methods.read);
  if (reader && (options.files.empty() || options.prompt.empty()))
    fail_usage("--read: expected a text (-f) and a question about it (-p)");
  Sampler sampler = options.sampling.sampler();
  std::string text = read_files(options);
  const LoadedModel loaded(options.common);
  if (reader) text = kept_text(*reader, text, loaded, options);
  text += options.prompt;
  Session session = loaded.session(options.common);
  const std::vector<int32_t> prompt = encode(loaded, text, options);
  const AttentionCount seen_before = loaded.runtime->work().attention.count();  // --read has attended, too
  const double prefill_seconds = read_tokens(session, prompt);

  GenerateOptions generation;
  generation.max_tokens = options.tokens;
  generation.stop = options.stop;
  generation.ignore_eos = options.ignore_eos;
  generation.show_special = options.special;
  const Generated result =
      generate(session, *loaded.tokenizer, sampler, prompt, generation, [&](std::string_view piece) {
        if (!options.json) write_out(piece);
      });
  const auto prompt_tokens = static_cast<int64_t>(prompt.size());
  const AttentionCount seen = loaded.runtime->work().attention.count() - seen_before;
  if (options.json) {
    print_json(result, prompt_tokens, prefill_seconds, seen, sampler.seed());
  } else if (!result.text.ends_with('\n')) {
    write_out("\n");
  }
  if (options.verbose || stderr_is_terminal()) print_summary(result, prompt_tokens, prefill_seconds, seen);
  note_idle_method(options.common, seen);
  if (result.stop == StopReason::kInterrupted) throw Error("interrupted", Error::Kind::kInterrupted);
}

}  // namespace

void add_run(Command program) {
  auto o = std::make_shared<RunOptions>();
  Command command = program.add_command("run", "Read files and a prompt, and continue them");
  command
      .add_option("-f,--file", o->files, "a text to read before the prompt; several in order; - is standard input")
      .type_name("FILE")
      .one_value();
  command.add_option("-p,--prompt", o->prompt, "the prompt").type_name("TEXT");
  add_size_option(command, "-n,--tokens", o->tokens, 0, "most tokens to generate [256]");
  add_common_options(command, o->common, MethodChoice::kAll);
  add_sampling_options(command, o->sampling);
  command.add_option("--stop", o->stop, "a text at which to stop; several; it is not printed")
      .type_name("TEXT")
      .one_value();
  command.add_flag("--chat", o->chat, "the text is a user's message, put in the form of the model's chat template");
  command.add_option("-s,--system", o->system, "the system prompt, with --chat").type_name("TEXT");
  command.add_option("--template", o->chat_template, "a chat template in Jinja, with --chat [the model file's own]")
      .type_name("FILE");
  command.add_flag("--ignore-eos", o->ignore_eos, "go on where the model would end");
  command.add_flag("--special", o->special,
                   "special tokens in the prompt, as </s>, mean themselves, and are printed");
  command.add_flag("--json", o->json, "one JSON object with the text, counts and speeds");
  command.add_flag("--verbose", o->verbose, "counts and speeds on stderr, also when it is no terminal");
  command.footer(R"(Examples:
  fathom run -f book.txt -p "The next morning," -n 100
  cat log.txt | fathom run -m model.gguf -f - -p "In one sentence:" --temp 0.7 --top-p 0.9 --stop "."
)");
  command.callback([o] { run(*o); });
}

}  // namespace fathom
