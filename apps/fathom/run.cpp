// fathom run: reads files and a prompt, then generates text.
#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/stopwatch.h"
#include "commands.h"
#include "console.h"
#include "context/methods.h"
#include "decode/constraint.h"
#include "decode/constraints/edit_list.h"
#include "decode/drafts/pearl.h"
#include "decode/generate.h"
#include "decode/knn_lm.h"
#include "decode/search.h"
#include "dialogue.h"
#include "eval/length_metrics.h"
#include "loaded_model.h"
#include "saved_context.h"

namespace fathom {
namespace {

struct RunOptions {
  CommonOptions common;
  SamplingOptions sampling;
  DecodeOptions decode;
  std::string search, knn;
  int64_t knn_neighbours = KnnLmOptions().neighbours;
  double knn_weight = KnnLmOptions().lambda;
  std::vector<std::string> files;
  std::string context_file;  // empty: none
  std::string prompt, system, chat_template;
  std::vector<std::string> stop;
  int64_t tokens = 256, answer_words = 0;
  bool apply_edits = false;
  bool chat = false, ignore_eos = false, special = false, json = false, verbose = false;
};

std::string read_files(const RunOptions& options) {
  if (std::ranges::count(options.files, "-") > 1) fail_usage("-f -: standard input can be read only once");
  std::string text;
  for (const std::string& file : options.files) text += read_input(file);
  return text;
}

/// Returns the part of `text` that the reader keeps for the prompt's question.
std::string kept_text(const Reader& reader, const std::string& text, const LoadedModel& loaded,
                      const RunOptions& options) {
  const int64_t trained = loaded.model->config().trained_context;
  const int64_t window = options.common.context > 0 ? std::min(options.common.context, trained) : trained;
  // an estimate: readers read parts of the text again with each window
  Progress progress("reading parts", "tokens", std::ssize(loaded.tokenizer->encode(text)) * 3 / 2);
  return reader.read(text, options.prompt,
                     {[&](int layers) { return loaded.session(options.common, layers); }, *loaded.tokenizer, window,
                      [&](int64_t tokens) {
                        progress.update(tokens);
                        throw_if_interrupted();
                      }});
}

/// Returns the text of a context that a prompt can continue. Throws Error for one that `fathom ask` alone can use.
std::string continued_text(const ContextFile& context) {
  FramedText framed = FramedText::of(context);
  if (framed.chat || framed.cartridge)
    fail(context.path(),
         ": expected a text that was read without --chat; ask about this context with `fathom ask`");
  return std::move(framed.text);
}

/// Returns the tokens of `text`: as plain text, or with --chat as a user message rendered by the chat template.
std::vector<int32_t> encode(const LoadedModel& loaded, const std::string& text, const RunOptions& options) {
  if (!options.chat) return encode_prompt(*loaded.tokenizer, text, options.special);
  std::vector<ChatMessage> messages;
  if (!options.system.empty()) messages.push_back({"system", options.system});
  messages.push_back({"user", text});
  const auto chat_template = open_chat_template(loaded, options.chat_template);
  return encode_prompt(*loaded.tokenizer, chat_template->render(messages, true), true);
}

/// Returns `source` with the list of edits that was generated. Throws Error with the list if it is not one.
std::string edited(const std::string& source, const std::string& list) {
  try {
    return apply_edits(source, parse_edits(list, std::ssize(words_of(source))));
  } catch (const Error& error) {
    fail("--apply-edits: the generated list ", quote(list), " cannot be applied: ", error.what());
  }
}

/// Prints a note if the --attend method left out no token. Speed and quality are then those of dense attention.
void note_method_without_effect(const CommonOptions& options, const AttentionCount& count) {
  if (options.methods.attend == "dense" || count.attended < count.visible) return;
  note(concat("--attend ", options.methods.attend, " attended to all tokens: the text fits its budget"));
}

Json draft_sources(const DraftReport& report) {
  Json sources = Json::object();
  for (const DraftReport::Source& source : report.sources())
    sources[source.name] = {{"draft_tokens", source.proposed}, {"accepted_tokens", source.accepted}};
  return sources;
}

void print_json(const Generated& result, int64_t prompt_tokens, int64_t cached_tokens, double prefill_seconds,
                const AttentionCount& count, uint64_t seed) {
  const Json line = {{"text", result.text},
                     {"prompt_tokens", prompt_tokens},
                     {"cached_tokens", cached_tokens},
                     {"generated_tokens", result.tokens.size()},
                     {"seed", seed},
                     {"stop", name(result.stop)},
                     {"forwards", result.forwards},
                     {"tokens_per_forward", rate(result.steps, static_cast<double>(result.forwards))},
                     {"draft_tokens", result.drafts.proposed()},
                     {"accepted_tokens", result.drafts.accepted()},
                     {"draft_sources", draft_sources(result.drafts)},
                     {"draft_seconds", result.drafts.draft_seconds()},
                     {"prefill_tokens_per_second", rate(prompt_tokens - cached_tokens, prefill_seconds)},
                     {"decode_tokens_per_second", rate(result.steps, result.seconds)},
                     {"keys_attended_share", count.attended_share()}};
  write_out(line.dump() + "\n");
}

void print_summary(const Generated& result, int64_t prompt_tokens, int64_t cached_tokens, double prefill_seconds,
                   const AttentionCount& count) {
  const int64_t read = prompt_tokens - cached_tokens;
  const std::string cached = cached_tokens > 0 ? concat(" and took ", cached_tokens, " from a cache") : "";
  note(concat("read ", read, " tokens", cached, " in ", format_seconds(prefill_seconds), " (",
              format_size(rate(read, prefill_seconds)), " tokens/s), wrote ", result.tokens.size(), " (",
              format_size(rate(result.steps, result.seconds)), " tokens/s), attended to ",
              std::llround(100 * count.attended_share()), " % of the keys, stopped by ", name(result.stop)));
  if (result.drafts.proposed() > 0) note(concat("drafts: ", result.drafts.summary()));
}

/// Prints the hypotheses of a search; as text only the best one, unless `verbose`.
void print_hypotheses(const SearchResult& found, const Tokenizer& tokenizer, const RunOptions& options) {
  Json list = Json::array();
  for (const Hypothesis& hypothesis : found.hypotheses) {
    StreamDecoder decoder(tokenizer, options.special, true);
    std::string text;
    for (const int32_t token : hypothesis.tokens) text += decoder.add(token);
    text += decoder.flush();
    list.push_back({{"text", text},
                    {"tokens", hypothesis.tokens.size()},
                    {"log_probability", hypothesis.log_probability},
                    {"score", hypothesis.score},
                    {"ended", hypothesis.ended}});
    if (!options.json && list.size() == 1) write_out(text.ends_with('\n') ? text : text + "\n");
    if (!options.json && options.verbose)
      note(concat("log-probability ", hypothesis.log_probability, ": ", quote(text)));
  }
  if (options.json)
    write_out(Json{{"text", list[0]["text"]},
                   {"hypotheses", list},
                   {"tokens_read", found.tokens_read},
                   {"forwards", found.forwards}}
                  .dump() +
              "\n");
}

void search(const RunOptions& options, const LoadedModel& loaded, Session& session, std::span<const int32_t> prompt,
            const Constraint* constraint) {
  const auto method = search_methods().make(options.search);
  SearchTask task;
  task.session = &session;
  task.tokenizer = loaded.tokenizer.get();
  task.prompt = prompt;
  task.max_tokens = options.tokens;
  task.constraint = constraint;
  Progress progress("searching", "tokens", 0);
  task.progress = [&](int64_t tokens) {
    progress.update(tokens);
    throw_if_interrupted();
  };
  print_hypotheses(method->run(task), *loaded.tokenizer, options);
}

void run(RunOptions options) {
  if (!options.chat && !(options.system.empty() && options.chat_template.empty()))
    fail_usage("-s and --template need --chat");
  if (options.apply_edits &&
      (options.decode.constraint.empty() || parse_spec(options.decode.constraint).name != "edits"))
    fail_usage("--apply-edits needs --constrain edits");
  if (options.files.empty() && options.prompt.empty())
    fail_usage("nothing to read: give a prompt (-p TEXT) or a file (-f FILE)");
  if (!options.context_file.empty() && (options.chat || options.common.methods.read != MethodSpecs().read))
    fail_usage("--context-file does not work with --chat and --read: expected `fathom ask`");
  const auto reader = read_methods().make(options.common.methods.read);
  if (reader && (options.files.empty() || options.prompt.empty()))
    fail_usage("--read: expected a text (-f FILE) and a question about it (-p TEXT)");
  Sampler sampler = options.sampling.sampler();
  if (!options.search.empty()) {
    search_methods().make(options.search);  // reports errors before the model is loaded
    if (!sampler.greedy() || !options.sampling.steps.empty() || !options.stop.empty() ||
        !options.decode.drafts.empty())
      fail_usage(
          "--search does not sample: expected no --temp, --sample, --top-k, --top-p, --min-p, --stop and --draft");
  }
  std::string text = read_files(options);
  std::shared_ptr<const ContextFile> context;
  if (!options.context_file.empty())
    context = open_context_file(options.context_file, options.common, MethodSpecs());
  const LoadedModel loaded(options.common);
  const std::string edited_text = options.apply_edits ? text : "";
  std::shared_ptr<const Constraint> constraint;
  if (!options.decode.constraint.empty())
    constraint =
        constraint_methods().make(options.decode.constraint, ConstraintSetup{loaded.tokenizer.get(), text});
  if (reader) text = kept_text(*reader, text, loaded, options);
  text += options.prompt;
  if (context) text.insert(0, continued_text(*context));
  Session session = context ? open_session(loaded, options.common, context) : loaded.session(options.common);
  std::vector<int32_t> prompt = encode(loaded, text, options);
  if (options.answer_words > 0)
    std::ranges::copy(eval::length_prefix(*loaded.tokenizer, options.answer_words), std::back_inserter(prompt));
  const AttentionCount attention_before =
      loaded.runtime->work().attention.count();  // includes the passes of --read
  std::optional<KnnLm> knn;
  if (!options.knn.empty()) {
    const auto store =
        std::make_shared<const Datastore>(Datastore::load(options.knn, DatastoreModel::of(*loaded.model)));
    knn.emplace(store, KnnLmOptions{.neighbours = options.knn_neighbours, .lambda = options.knn_weight});
    session.keep_hidden({loaded.model->config().layers - 1});
  }
  const DraftSetup setup{loaded.model, loaded.runtime, loaded.tokenizer.get(), &session};
  const auto pearl = find_pearl(options.decode.drafts, setup);
  Drafter drafter(pearl ? DraftOptions() : options.decode.draft(), setup);
  const Stopwatch prefill;
  const int64_t read = read_after_common_prefix(session, prompt);
  const double prefill_seconds = prefill.seconds();
  if (!options.search.empty()) return search(options, loaded, session, prompt, constraint.get());
  sampler.constrain(constraint, std::ssize(prompt));

  GenerateOptions generation;
  generation.max_tokens = options.tokens;
  generation.stop = options.stop;
  generation.ignore_eos = options.ignore_eos;
  generation.show_special = options.special;
  generation.knn = knn ? &*knn : nullptr;
  const auto on_text = [&](std::string_view piece) {
    if (!options.json && !options.apply_edits) write_out(piece);
  };
  Generated result = pearl ? generate_pearl(session, pearl->setup, *loaded.tokenizer, sampler, prompt, generation,
                                            pearl->options, on_text)
                           : generate(session, *loaded.tokenizer, sampler, prompt, generation, on_text, &drafter);
  const auto prompt_tokens = static_cast<int64_t>(prompt.size());
  const int64_t cached = prompt_tokens - read + session.restored();
  if (options.apply_edits && result.stop != StopReason::kInterrupted) {
    result.text = edited(edited_text, result.text);
    if (!options.json) write_out(result.text);
  }
  const AttentionCount attention = loaded.runtime->work().attention.count() - attention_before;
  if (options.json) {
    print_json(result, prompt_tokens, cached, prefill_seconds, attention, sampler.seed());
  } else if (!result.text.ends_with('\n')) {
    write_out("\n");
  }
  if (options.verbose || stderr_is_terminal())
    print_summary(result, prompt_tokens, cached, prefill_seconds, attention);
  note_method_without_effect(options.common, attention);
  if (result.stop == StopReason::kInterrupted) throw Error("interrupted", Error::Kind::kInterrupted);
}

}  // namespace

void add_run(Command program) {
  auto o = std::make_shared<RunOptions>();
  Command command = program.add_command("run", "Read files and a prompt, then generate text");
  command
      .add_option("-f,--file", o->files,
                  "text to read before the prompt; repeatable, read in order; - is standard input")
      .type_name("FILE")
      .one_value();
  command.add_option("-p,--prompt", o->prompt, "prompt; it follows the files").type_name("TEXT");
  add_size_option(command, "-n,--tokens", o->tokens, 0, "maximum number of tokens to generate [256]");
  add_common_options(command, o->common, MethodChoice::kAll);
  add_context_options(command, o->common, o->context_file);
  add_sampling_options(command, o->sampling);
  add_decode_options(command, o->decode);
  command
      .add_option("--search", o->search,
                  "look for likely texts instead of sampling, such as beam:width=4; list: `fathom methods search`")
      .type_name("METHOD");
  command.add_flag("--apply-edits", o->apply_edits,
                   "with --constrain edits: print the edited text instead of the list of edits");
  add_size_option(command, "--answer-words", o->answer_words, 1,
                  "begin the answer with the meta length token for this many words, for models trained with such "
                  "tokens",
                  1'000'000);
  command.add_option("--stop", o->stop, "stop before this text; repeatable").type_name("TEXT").one_value();
  command
      .add_option("--knn", o->knn,
                  "mix the predictions with those of a datastore (fathom datastore): nearest earlier texts vote")
      .type_name("FILE");
  add_size_option(command, "--knn-neighbours", o->knn_neighbours, 1,
                  "with --knn: number of entries that vote for the next token [64]", 1 << 20);
  add_share_option(command, "--knn-weight", o->knn_weight, "number",
                   "with --knn: weight of the datastore, 0 to 1 [0.25]")
      .type_name("W");
  command.add_flag("--chat", o->chat,
                   "treat files and prompt as a user message and render it with the chat template");
  command.add_option("-s,--system", o->system, "with --chat: the system prompt").type_name("TEXT");
  command
      .add_option("--template", o->chat_template,
                  "with --chat: a chat template in Jinja [the one in the model file]")
      .type_name("FILE");
  command.add_flag("--ignore-eos", o->ignore_eos, "continue after the model's end-of-text token, up to -n tokens");
  command.add_flag("--special", o->special,
                   "parse special tokens such as </s> in the text, and print generated ones");
  command.add_flag("--json", o->json, "print one JSON object with the text, counts and speeds");
  command.add_flag("--verbose", o->verbose, "print counts and speeds on stderr even if it is not a terminal");
  command.footer(R"(Examples:
  fathom run -f book.txt -p "The next morning," -n 100
  cat log.txt | fathom run -m model.gguf -f - -p "In one sentence:" --temp 0.7 --top-p 0.9 --stop "."
)");
  command.callback([o] { run(*o); });
}

}  // namespace fathom
