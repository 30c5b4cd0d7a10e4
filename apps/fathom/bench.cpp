// fathom bench: measures prefill and decode speed, also as a share of the machine's limits.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <iomanip>
#include <memory>
#include <optional>
#include <random>
#include <sstream>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "bench_context.h"
#include "bench_draft.h"
#include "bench_figure.h"
#include "bench_timing.h"
#include "commands.h"
#include "console.h"
#include "eval/machine.h"
#include "options.h"
#include "session/session.h"

namespace fathom {
namespace {

struct BenchOptions {
  CommonOptions common;
  std::string shape, write;
  std::vector<std::string> beside;  // specs of further --attend methods
  ContextBenchOptions context;      // its tests, if any, are measured instead
  std::optional<std::vector<int64_t>> prefill, depth, decode;
  int sequences = 1;
  int repeat = 3;
  std::optional<double> seconds;  // for each figure
  DraftBenchOptions draft;
  bool json = false;
};

/// Default of --seconds without --draft.
constexpr double kSeconds = 20;

/// Minimum tokens of a prefill run. Weights are read once per chunk, so shorter runs would mainly measure that.
constexpr int64_t kMinPrefill = 64;

/// Number of tokens that are filled in between two updates of the progress.
constexpr int64_t kFillTokens = 4096;

/// Minimum shares of the time that a row reports: time in selectors, and time in which other programs used the
/// cores.
constexpr double kReportedSelecting = 0.01, kReportedWaiting = 0.02;

std::vector<int64_t> parse_sizes(const std::string& list, const char* option) {
  std::vector<int64_t> sizes;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    const auto size = parse_size(list.substr(begin, end - begin));
    if (!size || *size < 0)
      fail_usage(option, ": expected sizes separated by commas, such as 512,4k, found ", quote(list));
    sizes.push_back(*size);
    begin = end + 1;
  }
  return sizes;
}

double parse_seconds(const std::string& text) {
  double seconds = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, seconds);
  if (parsed.ec != std::errc() || parsed.ptr != end || !std::isfinite(seconds) || seconds <= 0)
    fail_usage("--seconds: expected a number above 0, such as 20 or 0.5, found ", quote(text));
  return seconds;
}

/// Adds an option for sizes separated by commas.
void add_sizes_option(Command command, const char* name, std::optional<std::vector<int64_t>>& sizes,
                      const std::string& help) {
  command
      .add_option(
          name, [&sizes, name](const std::string& text) { sizes = parse_sizes(text, name); }, help)
      .type_name("SIZES");
}

std::string teraflops(double multiply_adds_per_second) {
  std::ostringstream out;
  out << std::setprecision(3) << 2 * multiply_adds_per_second / 1e12;
  return out.str();
}

/// Returns the multiply-adds of attention in all layers for tokens at positions [depth, depth + n).
double attention_multiply_adds(const ModelConfig& c, double depth, double n) {
  double sum = 0;
  for (int i = 0; i < c.layers; ++i) {
    const LayerConfig layer = c.layer(i);
    const auto window = layer.window > 0 ? static_cast<double>(layer.window) : depth + n;
    // rows attend to all earlier tokens until the window is full, then to `window` tokens
    const double whole = std::clamp(window - depth, 0.0, n);
    sum += static_cast<double>(layer.heads) * (layer.key_dim + layer.value_dim) *
           (depth * whole + whole * (whole + 1) / 2 + (n - whole) * window);
  }
  return sum;
}

/// Returns the bytes of pages and recurrent states at this depth.
double state_bytes(const Session& session, double depth) {
  double bytes = 0;
  for (int layer = 0; layer < session.sequence().layers(); ++layer) {
    if (const PagedKv* kv = session.sequence().paged(layer)) {
      const double tokens = kv->window() > 0 ? std::min(depth, static_cast<double>(kv->window())) : depth;
      bytes += static_cast<double>(kv->shape().bytes()) / kPageTokens * kv->heads() * tokens;
    }
    if (const RecurrentState* state = session.sequence().recurrent(layer))
      bytes += static_cast<double>(state->state_bytes());
  }
  return bytes;
}

class Bench {
 public:
  /// session: options of all sessions but their --attend method.
  Bench(const BenchOptions& options, SessionOptions session, std::shared_ptr<const Model> model,
        std::shared_ptr<Runtime> runtime)
      : options_(options),
        session_options_(std::move(session)),
        model_(std::move(model)),
        runtime_(std::move(runtime)),
        meter_(runtime_->pool(), kernels()),
        methods_{options.common.methods.attend},
        depths_(options.depth.value_or(std::vector<int64_t>{0})),
        prefills_(options.prefill.value_or(std::vector<int64_t>{512})) {
    if (options.draft.methods.empty()) decodes_ = options.decode.value_or(std::vector<int64_t>{32});
    methods_.insert(methods_.end(), options.beside.begin(), options.beside.end());
    std::erase(prefills_, 0);
    std::erase(decodes_, 0);
  }

  void run() {
    for (const std::string& attend : methods_) {  // wrong methods fail before the machine is measured
      SessionOptions options = session_options_;
      options.attend = attend;
      const Session session(model_, runtime_, options);
    }
    print_machine(limits());
    for (const int64_t depth : depths_) {
      const std::vector<Sessions> sessions = prepare(depth);
      for (const int64_t n : prefills_) measure_prefill(sessions, depth, n);
      for (const int64_t n : decodes_) measure_decode(sessions, depth, n);
    }
  }

 private:
  std::vector<int32_t> random_tokens(int64_t n) {
    std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(model_->config().vocabulary) - 1);
    std::vector<int32_t> tokens(n);
    for (int32_t& token : tokens) token = any(random_);
    return tokens;
  }

  /// Returns sessions that hold `depth` random tokens each. They do not share pages.
  Sessions fill(int64_t depth) {
    Progress progress("filling memory", "tokens", depth * options_.sequences);
    Sessions sessions;
    int64_t filled = 0;
    for (int i = 0; i < options_.sequences; ++i) {
      sessions.emplace_back(model_, runtime_, session_options_);
      for (int64_t left = depth; left > 0; left -= std::min(left, kFillTokens)) {
        throw_if_interrupted();
        sessions.back().fill_random(std::min(left, kFillTokens));
        filled += std::min(left, kFillTokens);
        progress.update(filled);
      }
    }
    return sessions;
  }

  /// Returns the sessions of each method at a depth. Memory is filled once for all methods. Each session then reads
  /// one more token, so that one-time work of the method on the tokens in memory is not part of a figure.
  std::vector<Sessions> prepare(int64_t depth) {
    const Sessions filled = fill(depth);
    std::vector<Sessions> prepared(methods_.size());
    const std::vector<int32_t> first = random_tokens(1);
    for (size_t m = 0; m < methods_.size(); ++m) {
      for (const Session& session : filled) prepared[m].push_back(session.fork(methods_[m]));
      if (depth > 0) step(prepared[m], first[0]);
    }
    return prepared;
  }

  /// Runs one decode step with the same token in each session.
  static void step(Sessions& sessions, int32_t token) {
    std::vector<Session*> all;
    for (Session& session : sessions) all.push_back(&session);
    Session::step(all, std::vector<int32_t>(all.size(), token));
  }

  void measure_prefill(const std::vector<Sessions>& prepared, int64_t depth, int64_t n) {
    std::vector<Sessions> first_of_each(methods_.size());
    for (size_t m = 0; m < methods_.size(); ++m) first_of_each[m].push_back(prepared[m][0].fork());
    BenchTest test;
    test.tokens = n;
    test.min_tokens = kMinPrefill;
    test.work = [&](int64_t tokens) {
      return (static_cast<double>(model_->network().multiply_adds()) - output_multiply_adds()) * tokens +
             output_multiply_adds() + attention_multiply_adds(model_->config(), depth, tokens);
    };
    test.run = [](Sessions& sessions, std::span<const int32_t> tokens, const auto& progress) {
      AppendOptions append;
      append.progress = progress;
      sessions[0].append(tokens, append);
    };
    measure(test, first_of_each, {.test = "prefill", .tokens = n, .depth = depth});
  }

  void measure_decode(const std::vector<Sessions>& prepared, int64_t depth, int64_t n) {
    BenchTest test;
    test.tokens = n;
    test.work = [&](int64_t tokens) {
      const double state = state_bytes(prepared[0][0], static_cast<double>(depth) + (tokens + 1) / 2.0);
      return (model_->network().weight_bytes(options_.sequences) + state * options_.sequences) * tokens;
    };
    test.run = [](Sessions& sessions, std::span<const int32_t> tokens, const auto& progress) {
      for (size_t i = 0; i < tokens.size(); ++i) {
        step(sessions, tokens[i]);
        progress(static_cast<int64_t>(i) + 1);
      }
    };
    measure(test, prepared, {.test = "decode", .tokens = n, .depth = depth, .sequences = options_.sequences});
  }

  /// Measures and prints a figure for each method.
  void measure(BenchTest test, const std::vector<Sessions>& sessions, Figure figure) {
    const size_t total = depths_.size() * (prefills_.size() + decodes_.size());
    test.label = concat("test ", ++tests_, " of ", total, ": ", figure.test, " ", format_size(test.tokens),
                        " at depth ", format_size(figure.depth));
    const int64_t measurements = meter_.measurements();
    const eval::MachineLimits before = limits();
    eval::reset_peak_resident_bytes();
    const Timing timing =
        time_runs(test, sessions, random_tokens(test.tokens), {options_.repeat, seconds()}, *runtime_);
    figure.peak_bytes = eval::peak_resident_bytes();
    figure.limits = eval::larger(before, limits());
    figure.limits_remeasured = meter_.measurements() > measurements;
    figure.tokens = timing.tokens;
    figure.tokens_requested = test.tokens;
    figure.work = test.work(timing.tokens);
    figure.waited = timing.waited_share;
    for (size_t m = 0; m < methods_.size(); ++m) {
      Figure own = figure;
      own.attend = methods_[m];
      own.attention = timing.methods[m].attention;
      own.seconds = timing.methods[m].seconds;
      own.speed_up = median_ratio(timing.methods[0].seconds, own.seconds);
      std::ranges::sort(own.seconds);
      print(own);
    }
    note_cut(figure, std::ssize(timing.methods[0].seconds));
  }

  static double median_ratio(const std::vector<double>& a, const std::vector<double>& b) {
    std::vector<double> ratios;
    for (size_t i = 0; i < a.size(); ++i) ratios.push_back(a[i] / b[i]);
    std::ranges::sort(ratios);
    return ratios[ratios.size() / 2];
  }

  /// Returns the machine's current limits. Prints a note if they were measured again.
  eval::MachineLimits limits() {
    const eval::MachineLimits before = limits_;
    const int64_t measurements = meter_.measurements();
    limits_ = meter_.limits();
    if (measurements > 0 && meter_.measurements() > measurements) {
      note(concat("the machine's speed has changed, so its limits were measured again: reads ",
                  format_bytes(before.read_bytes_per_second), "/s, now ",
                  format_bytes(limits_.read_bytes_per_second), "/s; ", teraflops(before.multiply_adds_per_second),
                  " Tflop/s, now ", teraflops(limits_.multiply_adds_per_second)));
    }
    return limits_;
  }

  /// Prints a note if runs or tokens were left out to stay within --seconds.
  void note_cut(const Figure& figure, int64_t runs) const {
    if (figure.tokens == figure.tokens_requested && runs == options_.repeat) return;
    note(concat(figure.test, " ", figure.tokens_requested, " at depth ", figure.depth, ": measured ", runs, " of ",
                options_.repeat, " runs of ", figure.tokens, " tokens within --seconds ", seconds(),
                "; increase it to measure more"));
  }

  double seconds() const { return options_.seconds.value_or(kSeconds); }

  double output_multiply_adds() const {
    return static_cast<double>(model_->config().vocabulary) * model_->config().width;
  }

  void print_machine(const eval::MachineLimits& limits) {
    if (options_.json) {
      return print_line({{"test", "machine"},
                         {"isa", kernels().isa},
                         {"processor", eval::processor_name()},
                         {"threads", runtime_->pool().threads()},
                         {"read_bytes_per_second", limits.read_bytes_per_second},
                         {"flops_per_second", 2 * limits.multiply_adds_per_second},
                         {"bf16_flops_per_second", 2 * limits.bf16_multiply_adds_per_second}});
    }
    const ModelConfig& config = model_->config();
    std::ostringstream out;
    out << "machine  " << eval::processor_name() << ", " << kernels().isa << ", " << runtime_->pool().threads()
        << " threads: reads " << format_bytes(limits.read_bytes_per_second) << "/s, "
        << teraflops(limits.multiply_adds_per_second) << " Tflop/s in the quantised matmul, "
        << teraflops(limits.bf16_multiply_adds_per_second) << " in bf16\n"
        << "model    " << config.name << ", " << format_bytes(model_->network().weight_bytes(1))
        << " of weights; attend " << options_.common.methods.attend << ", cache " << options_.common.methods.cache
        << "\n\n"
        << "test       tokens    depth    tokens/s     (slowest to fastest)  share of limit  peak memory\n";
    write_out(out.str());
  }

  void print(const Figure& f) const { options_.json ? print_object(f) : print_row(f); }

  void print_object(const Figure& f) const {
    Json line{{"test", f.test},
              {"model", model_->config().name},
              {"tokens", f.tokens},
              {"tokens_requested", f.tokens_requested},
              {"depth", f.depth},
              {"sequences", f.sequences},
              {"threads", runtime_->pool().threads()},
              {"attend", f.attend},
              {"cache", options_.common.methods.cache},
              {"tokens_per_second", f.tokens_per_second()},
              {"tokens_per_second_min", f.slowest()},
              {"tokens_per_second_max", f.fastest()},
              {"repeats", f.seconds.size()},
              {"repeats_requested", options_.repeat},
              {"share_of_limit", f.share()}};
    if (f.is_prefill()) {
      line["share_of_bf16_peak"] = f.share_of_bf16();
      line["flops_per_second"] = 2 * f.limits.multiply_adds_per_second;
      line["bf16_flops_per_second"] = 2 * f.limits.bf16_multiply_adds_per_second;
    } else {
      line["read_bytes_per_second"] = f.limits.read_bytes_per_second;
    }
    if (methods_.size() > 1) line["speed_up"] = f.speed_up;
    line["selecting_share"] = f.attention.selecting_share();
    line["waited_share"] = f.waited;
    line["limits_remeasured"] = f.limits_remeasured;
    line["peak_rss_bytes"] = f.peak_bytes;
    print_line(line);
  }

  void print_row(const Figure& f) const {
    std::ostringstream out;
    out << std::left << std::setw(8) << f.test << std::right << std::setw(9) << f.tokens << std::setw(9) << f.depth
        << std::fixed << std::setprecision(2) << std::setw(12) << f.tokens_per_second() << std::setw(13)
        << f.slowest() << " to " << std::setw(8) << f.fastest() << std::setprecision(1) << std::setw(7)
        << 100 * f.share() << "% " << (f.is_prefill() ? "multiply" : "reading ") << std::setw(13)
        << format_bytes(static_cast<double>(f.peak_bytes));
    if (f.is_prefill()) out << "  (" << 100 * f.share_of_bf16() << "% of bf16)";
    if (f.sequences > 1) out << "  " << f.sequences << " sequences together";
    if (methods_.size() > 1)
      out << std::setprecision(2) << "  " << f.speed_up << " × the speed of the first method: " << f.attend;
    if (f.attention.selecting_share() > kReportedSelecting)
      out << std::setprecision(1) << "  (selecting: " << 100 * f.attention.selecting_share() << "% of attention)";
    if (f.waited > kReportedWaiting)
      out << "  (measured too slow: other programs used the cores for " << 100 * f.waited << "% of the time)";
    write_out(out.str() + "\n");
  }

  static void print_line(const Json& line) { write_out(line.dump() + "\n"); }

  const BenchOptions& options_;
  SessionOptions session_options_;
  std::shared_ptr<const Model> model_;
  std::shared_ptr<Runtime> runtime_;
  eval::MachineMeter meter_;
  eval::MachineLimits limits_;
  std::vector<std::string> methods_;  // specs of --attend and --beside
  std::vector<int64_t> depths_, prefills_, decodes_;
  int64_t tests_ = 0;  // measured so far
  std::mt19937 random_{1};
};

/// Throws Error (usage) for options that do not work with --draft.
void check_draft_options(const BenchOptions& options) {
  check_draft_methods(options.draft);
  if (options.depth || !options.beside.empty() || options.sequences > 1)
    fail_usage("--depth, --beside and --sequences do not work with --draft, which decodes one text after another");
  if (options.decode && (options.decode->size() != 1 || options.decode->front() < 1))
    fail_usage("--decode: expected one number of at least 1 with --draft, such as 256");
}

DraftBenchOptions draft_options(const BenchOptions& options) {
  DraftBenchOptions draft = options.draft;
  if (options.decode) draft.tokens = options.decode->front();
  draft.runs = options.repeat;
  draft.seconds = options.seconds;
  draft.json = options.json;
  draft.heading = !options.prefill;
  return draft;
}

void run_bench(const BenchOptions& options) {
  if (options.repeat < 1) fail_usage("--repeat must be at least 1");
  if (options.sequences < 1) fail_usage("--sequences must be at least 1");
  if (!options.write.empty()) {
    if (options.shape.empty()) fail_usage("--write needs --shape, the model to write");
    return write_random_model(options.shape, options.write);
  }
  const bool drafts = !options.draft.methods.empty();
  if (drafts) {
    check_draft_options(options);
  } else if (!options.draft.texts.empty() || !options.draft.plot.empty() || options.draft.nodes > 0) {
    fail_usage("--text, --plot and --draft-nodes need --draft, the method to measure");
  }
  const auto model =
      options.shape.empty() ? Model::open(options.common.model_path()) : Model::random(options.shape);
  const auto runtime = std::make_shared<Runtime>(static_cast<int>(options.common.threads));
  const SessionOptions session = options.common.session(open_adapters(options.common.lora, model));
  if (!options.context.tests.empty()) {
    ContextBenchOptions own = options.context;
    own.depths = options.depth.value_or(std::vector<int64_t>{});
    own.runs = options.repeat, own.json = options.json, own.memory = static_cast<size_t>(options.common.memory);
    return bench_contexts(own, session, model, runtime);
  }
  if (!drafts || options.prefill) Bench(options, session, model, runtime).run();
  if (drafts) bench_drafts(draft_options(options), session, model, runtime);
}

}  // namespace

void add_bench(Command program) {
  auto options = std::make_shared<BenchOptions>();
  Command command =
      program.add_command("bench", "Measure prefill and decode speed, also as a share of the machine's limits");
  add_common_options(command, options->common);
  command
      .add_option("--shape", options->shape,
                  "use a model with random weights instead of a file: a shape (" + shape_names() +
                      ") and a weight type, such as llama-1b:q4_k")
      .type_name("SHAPE:TYPE");
  command
      .add_option("--write", options->write,
                  "write the model of --shape as a GGUF file for other engines, and measure nothing")
      .type_name("FILE");
  command
      .add_option("--beside", options->beside,
                  "another --attend method to compare; its runs alternate with those of --attend; repeatable")
      .type_name("METHOD")
      .one_value();
  add_sizes_option(command, "--prefill", options->prefill,
                   "numbers of tokens to read, separated by commas; 0 skips prefill [512; with --draft: 0]");
  add_sizes_option(
      command, "--depth", options->depth,
      "numbers of tokens already in memory (random, not read), separated by commas; more is slower [0]");
  add_sizes_option(command, "--decode", options->decode,
                   "numbers of tokens to generate one by one, separated by commas; 0 skips decode; with --draft: "
                   "tokens of each run [32; with --draft: 256]");
  command
      .add_option("--sequences", options->sequences,
                  "sequences decoded together, one token each per step; more gives more tokens/s in total, which "
                  "is printed [1]")
      .type_name("N");
  command
      .add_option("--repeat", options->repeat,
                  "runs of each figure, whose median is printed; more is slower and less noisy [3]")
      .type_name("N");
  add_context_bench_options(command, options->context);
  add_draft_bench_options(command, options->draft);
  command
      .add_option(
          "--seconds", [options](const std::string& text) { options->seconds = parse_seconds(text); },
          "maximum seconds for each figure; if they do not suffice, fewer runs and then fewer tokens are measured; "
          "with --draft: only fewer runs [20; with --draft: no limit]")
      .type_name("S");
  command.add_flag("--json", options->json, "print one JSON object per line");
  command.footer(
      R"(The machine's limits are measured in the same run with the same threads: how fast it reads memory, and how fast it
multiplies, with the instructions of the quantised matmul and in bf16. "share of limit" compares prefill (with
attention) with the limit of multiplying, and decode (weights and pages) with the limit of reading. A short probe before
and after each figure detects a change of the machine's speed; the limits are then measured again.

With --draft, prefill is measured only if --prefill is given. Runs with and without drafts alternate. "ratio" is the
median of the ratios of neighbouring runs, "tokens/pass" the tokens per forward pass, "accepted" the accepted share of the
drafted tokens, "drafting" the share of the time spent on drafting. The tokens are the same in all runs, which is checked.

Examples:
  fathom bench --shape llama-1b:q4_k --prefill 512,4k --depth 0,4k
  fathom bench -m model.gguf --depth 16k --attend window:sink=4,window=2k --json
  fathom bench -m model.gguf --depth 32k --prefill 0 --beside quest:share=0.25 --beside hip --sequences 4
  fathom bench --shape llama-1b:q4_k --write llama-1b.gguf
  fathom bench -m model.gguf --test open --test edit --depth 8k
  fathom bench --shape llama-1b:q4_k --test large --depth 128k --memory 512m --attend infllm
  fathom bench --test edit-quality --test join-quality --documents src
  fathom bench -m model.gguf --draft auto --draft suffix --plot drafts.svg
)");
  command.callback([options] { run_bench(*options); });
}

}  // namespace fathom
