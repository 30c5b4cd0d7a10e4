// fathom ask: answers questions about texts that `fathom read` saved.
#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "base/stopwatch.h"
#include "commands.h"
#include "console.h"
#include "decode/constraint.h"
#include "decode/generate.h"
#include "saved_context.h"

namespace fathom {
namespace {

struct AskOptions {
  CommonOptions common;
  SamplingOptions sampling;
  DecodeOptions decode;
  std::vector<std::string> contexts, questions, stop;
  std::string join = "concat";
  int64_t tokens = 256;
  bool ignore_eos = false, json = false, verbose = false;
};

/// The contexts of a command, opened and joined.
struct OpenedContexts {
  Session session;
  std::vector<FramedText> texts;
  double seconds = 0;  // of opening and joining
};

OpenedContexts open_contexts(const LoadedModel& loaded, const CommonOptions& options, const std::string& join,
                             const std::vector<std::shared_ptr<const ContextFile>>& files) {
  const Stopwatch watch;
  std::vector<Session> sessions;
  std::vector<const Session*> parts;
  std::vector<FramedText> texts;
  for (const auto& file : files) {
    sessions.push_back(open_session(loaded, options, file));
    texts.push_back(FramedText::of(*file));
    if (texts.back().after != texts[0].after)
      fail(file->path(), ": expected contexts that were all read with the same chat template, or all without");
  }
  for (const Session& session : sessions) parts.push_back(&session);
  Session joined = parts.size() == 1 ? std::move(sessions[0]) : Session::join(parts, join_methods().make(join));
  return {std::move(joined), std::move(texts), watch.seconds()};
}

/// Returns the tokens of a question after joined contexts.
std::vector<int32_t> question_tokens(const FramedText& last, const Tokenizer& tokenizer,
                                     const std::string& question) {
  if (last.cartridge) return tokenizer.encode(question, {false, false});
  const std::vector<int32_t> all = last.tokens(tokenizer, question), before = last.tokens(tokenizer);
  if (all.size() > before.size() && std::equal(before.begin(), before.end(), all.begin()))
    return {all.begin() + std::ssize(before), all.end()};
  // The question would change the last tokens of the context.
  return tokenizer.encode(question + last.after, {false, last.chat});
}

/// One answer, for reports.
struct QuestionAnswer {
  Generated result;
  int64_t context_tokens = 0, read_tokens = 0;
  double read_seconds = 0;
  FilePageReads pages;  // of the context files
};

QuestionAnswer answer(const Session& context, const OpenedContexts& opened, const std::string& question,
                      const LoadedModel& loaded, const AskOptions& options, Sampler& sampler) {
  const Tokenizer& tokenizer = *loaded.tokenizer;
  Session session = context.fork();
  QuestionAnswer answer;
  const FilePageReads before = session.file_page_reads();
  const Stopwatch watch;
  if (opened.texts.size() == 1 && !opened.texts[0].cartridge) {
    answer.read_tokens = read_after_common_prefix(session, opened.texts[0].tokens(tokenizer, question));
  } else {
    const std::vector<int32_t> tokens = question_tokens(opened.texts.back(), tokenizer, question);
    if (tokens.empty()) fail_usage("-p: expected a question, found an empty text");
    read_tokens(session, tokens);
    answer.read_tokens = std::ssize(tokens);
  }
  answer.read_seconds = watch.seconds();
  answer.context_tokens = session.length();
  std::vector<int32_t> prompt = session.ids();
  prompt.erase(prompt.begin(), std::find(prompt.rbegin(), prompt.rend(), -1).base());  // slots have no ids
  if (!options.decode.constraint.empty())
    sampler.constrain(
        constraint_methods().make(options.decode.constraint, ConstraintSetup{&tokenizer, opened.texts.back().text}),
        std::ssize(prompt));
  Drafter drafter(options.decode.draft(), {loaded.model, loaded.runtime, &tokenizer, &session});
  GenerateOptions generation;
  generation.max_tokens = options.tokens;
  generation.stop = options.stop;
  generation.ignore_eos = options.ignore_eos;
  answer.result = generate(
      session, tokenizer, sampler, prompt, generation,
      [&](std::string_view piece) {
        if (!options.json) write_out(piece);
      },
      &drafter);
  answer.pages = session.file_page_reads() - before;
  return answer;
}

void print_json(const QuestionAnswer& answer, const OpenedContexts& opened, const std::string& question,
                uint64_t seed) {
  const Generated& result = answer.result;
  const Json line = {
      {"question", question},
      {"text", result.text},
      {"prompt_tokens", answer.context_tokens},
      {"opened_tokens", opened.session.opened()},
      {"cached_tokens", answer.context_tokens - answer.read_tokens},
      {"read_tokens", answer.read_tokens},
      {"generated_tokens", result.tokens.size()},
      {"seed", seed},
      {"stop", name(result.stop)},
      {"open_seconds", opened.seconds},
      {"read_seconds", answer.read_seconds},
      {"file_pages",
       {{"read", answer.pages.read}, {"missed", answer.pages.missed}, {"loaded", answer.pages.loaded}}},
      {"forwards", result.forwards},
      {"tokens_per_forward", rate(result.steps, static_cast<double>(result.forwards))},
      {"draft_tokens", result.drafts.proposed()},
      {"accepted_tokens", result.drafts.accepted()},
      {"decode_tokens_per_second", rate(result.steps, result.seconds)}};
  write_out(line.dump() + "\n");
}

/// Describes how the pages of context files were read.
std::string pages_text(const FilePageReads& pages) {
  const double hits = pages.read == 0 ? 1 : 1 - static_cast<double>(pages.missed) / static_cast<double>(pages.read);
  return concat("looked at ", pages.read, " pages of the file, ", format_size(100 * std::max(0.0, hits)),
                " % of them in memory");
}

void run_ask(AskOptions options) {
  if (options.questions.empty()) fail_usage("nothing to ask: give a question (-p TEXT)");
  join_methods().make(options.join);  // reports errors before the model is loaded
  std::vector<std::shared_ptr<const ContextFile>> files;
  for (const std::string& path : options.contexts)
    files.push_back(open_context_file(path, options.common, methods_as_read()));
  Sampler sampler = options.sampling.sampler();
  const LoadedModel loaded(options.common);
  const OpenedContexts opened = open_contexts(loaded, options.common, options.join, files);
  for (const std::string& question : options.questions) {
    const QuestionAnswer found = answer(opened.session, opened, question, loaded, options, sampler);
    const Generated& result = found.result;
    if (options.json) {
      print_json(found, opened, question, sampler.seed());
    } else if (!result.text.ends_with('\n')) {
      write_out("\n");
    }
    if (options.verbose || stderr_is_terminal())
      note(concat("opened ", opened.session.opened(), " tokens in ", format_seconds(opened.seconds), ", read ",
                  found.read_tokens, " in ", format_seconds(found.read_seconds), ", wrote ", result.tokens.size(),
                  " (", format_size(rate(result.steps, result.seconds)), " tokens/s), stopped by ",
                  name(result.stop), "; ", pages_text(found.pages)));
    if (result.stop == StopReason::kInterrupted) throw Error("interrupted", Error::Kind::kInterrupted);
  }
}

}  // namespace

void add_ask(Command program) {
  auto o = std::make_shared<AskOptions>();
  o->common.methods = methods_as_read();
  Command command = program.add_command("ask", "Answer questions about texts that `fathom read` saved");
  command.add_option("contexts", o->contexts, "context files; several are joined").type_name("FILE").required();
  command
      .add_option("-p,--prompt", o->questions,
                  "question; it follows the text directly. Repeatable: each question is answered on its own")
      .type_name("TEXT")
      .one_value();
  add_size_option(command, "-n,--tokens", o->tokens, 0, "maximum number of tokens to generate [256]");
  command
      .add_option("--join", o->join,
                  "how several contexts are placed, such as set or ape:t=0.9; list: `fathom methods join` [concat]")
      .type_name("METHOD");
  add_common_options(command, o->common);
  add_sampling_options(command, o->sampling);
  add_decode_options(command, o->decode);
  command.add_option("--stop", o->stop, "stop before this text; repeatable").type_name("TEXT").one_value();
  command.add_flag("--ignore-eos", o->ignore_eos, "continue after the model's end-of-text token, up to -n tokens");
  command.add_flag("--json", o->json, "print one JSON object for each question");
  command.add_flag("--verbose", o->verbose, "print counts and speeds on stderr even if it is not a terminal");
  command.footer(
      R"(A context file is opened by mapping: only the question is read, and the file is never changed. The answer is that of
`fathom run -f TEXT -p QUESTION` with the same methods, and the same --chat.

Examples:
  fathom ask book.ctx -p "Question: Who is the captain? Answer:" -n 20
  fathom ask a.ctx b.ctx --join set -p "Question: Which of the two is older? Answer:" --json
)");
  command.callback([o] { run_ask(*o); });
}

}  // namespace fathom
