// fathom eval: measures tasks × lengths × methods × models and compares the methods.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "attend/methods.h"
#include "base/content_hash.h"
#include "base/error.h"
#include "base/file_map.h"
#include "base/format.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/write_file.h"
#include "commands.h"
#include "console.h"
#include "context/methods.h"
#include "decode/drafter.h"
#include "dialogue.h"
#include "eval/machine.h"
#include "eval/report.h"
#include "eval/runner.h"
#include "evict/methods.h"
#include "loaded_model.h"
#include "position/rotary.h"
#include "saved_context.h"

namespace fathom {
namespace {

struct EvalOptions {
  CommonOptions common;  // threads and chunk of every model
  std::vector<std::string> models, tasks, drafts;
  MethodLists methods;
  std::string lengths = "1k", haystack, chat_template, json, html;
  std::string context_file;  // empty: none
  int64_t samples = 20, concurrency = 1, seed = 1;
  bool apart = false, no_baseline = false, dense_prefill = false, repeat_haystack = false, haystack_start = false,
       chat = false, check_drafts = false;
};

std::vector<int64_t> parse_lengths(const std::string& text) {
  std::vector<int64_t> lengths;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const auto length = parse_size(std::string_view(text).substr(begin, end - begin));
    if (!length || *length < 1 || *length > kPositionLimit)
      fail_usage("--lengths: expected numbers of tokens separated by commas, such as 1k,4k, found ", quote(text));
    if (std::ranges::count(lengths, *length) > 0) fail_usage("--lengths: ", *length, " is given twice");
    lengths.push_back(*length);
    begin = end + 1;
  }
  return lengths;
}

/// Returns the methods to evaluate: the baseline, then every combination of the given methods, or with --apart each
/// of them alone.
std::vector<MethodSpecs> list_methods(const EvalOptions& options) {
  const MethodSpecs& baseline = options.common.methods;
  std::vector<MethodSpecs> requested;
  if (!options.apart) requested.push_back(baseline);
  for (const std::string_view kind : {"position", "cache", "attend", "evict", "read"}) {
    const auto option = std::ranges::find(kMethodOptions, kind, &MethodOption::kind);
    const std::vector<std::string>& specs = options.methods[option - kMethodOptions.begin()];
    if (specs.empty()) continue;
    std::vector<MethodSpecs> extended;
    for (const MethodSpecs& method : options.apart ? std::vector{baseline} : requested) {
      for (const std::string& spec : specs) {
        extended.push_back(method);
        extended.back().*option->spec = parse_spec(spec).to_string();
      }
    }
    if (!options.apart) requested.clear();
    requested.insert(requested.end(), extended.begin(), extended.end());
  }
  std::vector<MethodSpecs> methods;
  if (!options.no_baseline) methods.push_back(baseline);
  for (const MethodSpecs& method : requested) {
    const auto same = [&](const MethodSpecs& other) { return other == method; };
    if (std::ranges::none_of(methods, same)) methods.push_back(method);
  }
  if (methods.empty()) methods.push_back(baseline);
  return methods;
}

/// Throws Error (usage) for unknown methods and parameters, before any model is opened.
void check_specs(const std::vector<MethodSpecs>& methods) {
  for (const MethodSpecs& method : methods) {
    attend_methods().make(method.attend);
    cache_methods().make(method.cache);
    evict_methods().make(method.evict);
    read_methods().make(method.read);
    const Spec position = parse_spec(method.position);
    check_values(position, position_methods().find(position).info.parameters);
  }
}

/// Returns a hash of the file's size and of 64 samples of its bytes. It distinguishes models of the same name.
std::string file_id(const std::string& path) {
  constexpr size_t kPieces = 64, kPieceBytes = 4096;
  const FileMap file(path);
  const std::string_view bytes = file.text();
  ContentHash hash;
  hash.add(static_cast<uint64_t>(bytes.size()));
  for (size_t piece = 0; piece < kPieces; ++piece)
    hash.add(bytes.substr(bytes.size() / kPieces * piece, kPieceBytes));
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash.value()));
  return text;
}

/// Returns the part of a model's name for one of its adapters: "+terse:scale=0.5".
std::string adapter_name(const AdapterFile& adapter) {
  const std::string stem = std::filesystem::path(adapter.path).stem();
  return concat("+", stem, adapter.scale == 1 ? "" : concat(":scale=", adapter.scale));
}

eval::EvalModel open_model(const EvalOptions& options, const std::string& path) {
  CommonOptions common = options.common;
  common.model = path;
  LoadedModel loaded(common);
  eval::EvalModel model{
      std::filesystem::path(path).stem(), file_id(path), loaded.model, nullptr, loaded.runtime, nullptr};
  model.adapters = loaded.adapters;
  for (const AdapterFile& adapter : common.lora) {
    model.name += adapter_name(adapter);
    model.id += concat("+", file_id(adapter.path), ":", adapter.scale);
  }
  if (options.chat) model.chat = open_chat_template(loaded, options.chat_template);
  model.tokenizer = std::move(loaded.tokenizer);
  return model;
}

std::string quoted_for_shell(const std::string& word) {
  const bool plain = !word.empty() && word.find_first_of(" \t\n\"'\\$`*?[]()<>|&;#~!{}") == std::string::npos;
  if (plain) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

/// Returns this process's command line, quoted for a shell.
std::string command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string command, word;
  std::getline(file, word, '\0');  // the program's own path
  command = "fathom";
  while (std::getline(file, word, '\0')) command += " " + quoted_for_shell(word);
  return command;
}

std::string now() {
  const std::time_t time = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&time, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

int terminal_width() {
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 140;
}

class EvalCommand {
 public:
  explicit EvalCommand(EvalOptions options) : options_(std::move(options)) {}

  void run() {
    if (!options_.context_file.empty()) open_context();
    const std::vector<MethodSpecs> methods = list_methods(options_);
    check_specs(methods);
    for (const std::string& draft : options_.drafts) check_draft_method(draft);
    haystack_ = make_haystack();
    eval::EvalPlan plan{eval::make_tasks(options_.tasks),
                        parse_lengths(options_.lengths),
                        methods,
                        options_.samples,
                        static_cast<uint64_t>(options_.seed),
                        haystack_.get(),
                        trial_options()};
    plan_ = plan;
    std::unique_ptr<eval::RecordLog> log = options_.json.empty() ? std::make_unique<eval::RecordLog>()
                                                                 : std::make_unique<eval::RecordLog>(options_.json);
    eval::Evaluation evaluation(std::move(plan), *log);
    std::vector<std::string> paths = options_.models;
    if (paths.empty()) paths.push_back(options_.common.model_path());
    for (const std::string& path : paths) {
      const eval::EvalModel model = open_model(options_, path);
      print_advice(model);
      evaluation.check(model);
    }
    evaluate(evaluation, paths);
    report(evaluation);
  }

 private:
  /// Opens the context file and takes what was not given from it: the model, its adapters and the methods.
  void open_context() {
    if (options_.models.size() > 1) fail_usage("--context-file: a context belongs to one model, found several -m");
    if (!options_.models.empty()) options_.common.model = options_.models[0];
    const auto file = open_context_file(options_.context_file, options_.common, MethodSpecs());
    context_ = std::make_shared<const eval::ReadContext>(file, options_.common.chunk);
  }

  std::unique_ptr<eval::Haystack> make_haystack() const {
    const eval::HaystackOptions use{options_.repeat_haystack, options_.haystack_start || context_};
    if (options_.haystack.empty() && context_ && !context_->file().text().empty())
      return eval::text_haystack(options_.context_file, context_->file().text(), use);
    const bool prose = options_.haystack.empty() || options_.haystack == "prose";
    return prose ? eval::prose_haystack() : eval::file_haystack(options_.haystack, use);
  }

  eval::TrialOptions trial_options() const {
    eval::TrialOptions trial;
    trial.chunk = options_.common.chunk;
    trial.concurrency = options_.concurrency;
    trial.share_prefill = options_.dense_prefill;
    trial.check_drafts = options_.check_drafts;
    trial.read_context = context_;
    for (const std::string& draft : options_.drafts)
      if (draft != "none") trial.draft.methods.push_back(draft == "auto" ? draft : parse_spec(draft).to_string());
    return trial;
  }

  void print_advice(const eval::EvalModel& model) const {
    if (!options_.chat && !model.tokenizer->vocabulary().chat_template.empty())
      note(concat(model.name, ": the model has a chat template; chat models answer better with --chat"));
    const int64_t trained = model.model->config().trained_context;
    const int64_t longest = *std::ranges::max_element(plan_.lengths);
    if (trained > 0 && longest > trained)
      note(concat(model.name, ": --lengths exceeds the trained length of ", trained,
                  " tokens; quality may fall beyond it"));
  }

  void evaluate(eval::Evaluation& evaluation, const std::vector<std::string>& paths) {
    Progress progress("evaluating", "tokens", evaluation.planned_tokens(static_cast<int64_t>(paths.size())));
    const eval::EvalProgress hooks{[&](const std::string& cell) { progress.set_note(cell); },
                                   [&](int64_t tokens) { progress.update(tokens); },
                                   [&](int64_t tokens) { progress.reduce_total(tokens); }};
    try {
      for (const std::string& path : paths) {
        const eval::EvalModel model = open_model(options_, path);
        describe(model, path);
        evaluation.run(model, hooks);
      }
    } catch (const Error& error) {
      if (error.kind() != Error::Kind::kInterrupted) throw;
      throw Error(options_.json.empty()
                      ? "interrupted; with --json FILE the same command could be continued later"
                      : concat("interrupted; run the same command again to continue, finished samples are in ",
                               options_.json),
                  error.kind());
    }
  }

  void describe(const eval::EvalModel& model, const std::string& path) {
    const ModelConfig& config = model.model->config();
    models_.push_back({{"name", model.name},
                       {"file", path},
                       {"id", model.id},
                       {"bytes", std::filesystem::file_size(path)},
                       {"architecture", config.name},
                       {"layers", config.layers},
                       {"trained_context", config.trained_context}});
    threads_ = model.runtime->pool().threads();
  }

  void report(const eval::Evaluation& evaluation) const {
    eval::Record labels = eval::Record::array();
    for (const MethodSpecs& method : plan_.methods) labels.push_back(method_label(method, plan_.trial));
    const eval::Record run = {
        {"command", command_line()},
        {"created", now()},
        {"version", FATHOM_VERSION},
        {"seed", options_.seed},
        {"machine", {{"processor", eval::processor_name()}, {"isa", kernels().isa}, {"threads", threads_}}},
        {"models", models_},
        {"methods", labels},
        {"lengths", plan_.lengths},
        {"tasks", evaluation.task_facts()},
        {"settings",
         {{"samples", options_.samples},
          {"haystack", haystack_->name()},
          {"concurrency", options_.concurrency},
          {"chunk", options_.common.chunk},
          {"chat", options_.chat},
          {"dense_prefill", options_.dense_prefill},
          {"draft", options_.drafts.empty() ? "none" : comma_list(options_.drafts)}}},
        {"summaries", evaluation.summaries()},
        {"samples", evaluation.records()}};
    if (options_.json != "-") write_out(eval::terminal_table(run, terminal_width()));
    if (context_) note_context_tokens(evaluation.records());
    if (options_.html.empty()) return;
    const std::string page = eval::html_report(run);
    write_file(options_.html, std::as_bytes(std::span(page)));
    note(concat("report written to ", options_.html));
  }

  /// Prints how much of the prompts was taken from the context file.
  void note_context_tokens(const std::vector<eval::Record>& records) const {
    double taken = 0, all = 0;
    for (const eval::Record& record : records) {
      taken += record.value("context_tokens", 0.0);
      all += record.value("prompt_tokens", 0.0);
    }
    note(concat(options_.context_file, ": ", std::llround(taken), " of ", std::llround(all),
                " tokens of all prompts were taken from it"));
  }

  EvalOptions options_;
  std::shared_ptr<const eval::ReadContext> context_;  // null: none
  std::unique_ptr<eval::Haystack> haystack_;
  eval::EvalPlan plan_;
  eval::Record models_ = eval::Record::array();
  int threads_ = 0;
};

}  // namespace

void add_eval(Command program) {
  auto o = std::make_shared<EvalOptions>();
  Command command =
      program.add_command("eval", "Measure quality, speed and memory of methods on tasks of any length");
  command
      .add_option("task", o->tasks,
                  "task, such as needle or kv_threads:hops=4; repeatable; list: `fathom methods task`")
      .type_name("TASK")
      .required();
  command.add_option("-m,--model", o->models, "model file (GGUF); repeatable [$FATHOM_MODEL, or fathom-reader]")
      .type_name("FILE")
      .one_value();
  command
      .add_option("--lengths", o->lengths,
                  "tokens of prompt and answer together, separated by commas; more is harder and slower [1k]")
      .type_name("SIZES");
  add_size_option(command, "--samples", o->samples, 1,
                  "samples of each task and length; more is slower and gives narrower confidence intervals [20]",
                  1000000);
  add_size_option(command, "--seed", o->seed, 0, "seed of the samples; the same seed gives the same samples [1]");
  add_method_lists(command, o->methods);
  add_adapter_option(command, o->common.lora);
  command.add_flag("--apart", o->apart, "evaluate each given method alone, not every combination of them");
  command.add_flag("--no-baseline", o->no_baseline,
                   "skip the exact baseline; use it for lengths at which the baseline takes too long");
  command.add_old_flag("--no-yardstick", "--no-baseline", o->no_baseline);
  command
      .add_option("--draft", o->drafts,
                  "how the tokens of answers are drafted, such as auto or suffix; faster, and the answers are the "
                  "same; repeatable: all are used together; list: `fathom methods draft` [none]")
      .type_name("METHOD")
      .one_value();
  command.add_flag("--check-drafts", o->check_drafts,
                   "with --draft: also decode each answer without drafts; another answer is an error");
  command.add_flag("--dense-prefill", o->dense_prefill,
                   "read the context once with dense attention; use --attend only for question and answer");
  command
      .add_option("--haystack", o->haystack,
                  "text in which facts are hidden: prose (built in), a text file, or a folder of .txt and .md "
                  "files [prose]")
      .type_name("PATH");
  command.add_flag("--haystack-start", o->haystack_start,
                   "begin each sample's text at the beginning of the haystack, not at a random paragraph");
  command.add_flag("--repeat-haystack", o->repeat_haystack, "repeat the haystack if it is shorter than a length");
  command
      .add_option(
          "--context-file", o->context_file,
          "a text that `fathom read` saved, with which prompts begin: only what follows is read; its text is "
          "the default of --haystack, from its beginning")
      .type_name("FILE");
  add_size_option(command, "--concurrency", o->concurrency, 1,
                  "samples answered together; more is faster; speeds are then totals of all [1]", 256);
  command.add_flag("--chat", o->chat, "render prompts with the chat template");
  command
      .add_option("--template", o->chat_template,
                  "with --chat: a chat template in Jinja [the one in the model file]")
      .type_name("FILE");
  add_size_option(command, "-t,--threads", o->common.threads, 1,
                  "threads; more is faster, up to the number of cores [all cores]", 1024);
  add_size_option(command, "--chunk", o->common.chunk, 1,
                  "tokens per forward pass while reading; more is faster and takes more memory [512]");
  command
      .add_option("--json", o->json,
                  "append results to this file as JSON lines and skip samples that it already has; - is stdout")
      .type_name("FILE");
  command.add_option("--html", o->html, "write an HTML report to this file").type_name("FILE");
  command.footer(
      R"(The first row of each table is the exact baseline: --attend dense, --position file, --cache bf16. The other methods are
compared with it on the same samples. "same" is the share of answers equal to the baseline's. "KL" is the mean
Kullback-Leibler divergence between the two predictions of the baseline's answer, in nats per token: 0 is equal, more is
farther from the baseline. docs/evaluation.md describes the tasks and all columns.

Examples:
  fathom eval needle --lengths 512,1k --attend window:sink=4,window=256 --html needles.html
  fathom eval ruler -m model.gguf --lengths 4k,16k --samples 100 --json results.jsonl --chat
  fathom eval perplexity --haystack book.txt --lengths 8k --cache q8 --cache q4
  fathom eval perplexity:from=4k --context-file book.ctx --haystack book.txt --lengths 8k --samples 1
)");
  command.callback([o] {
    if (!o->chat && !o->chat_template.empty()) fail_usage("--template needs --chat");
    if (o->check_drafts && o->drafts.empty()) fail_usage("--check-drafts needs --draft");
    EvalCommand(*o).run();
  });
}

}  // namespace fathom
