// fathom bench: speed as a share of what the machine can do, measured in the same run.
#include <algorithm>
#include <iomanip>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "base/stopwatch.h"
#include "commands.h"
#include "console.h"
#include "eval/machine.h"
#include "models/session.h"
#include "options.h"

namespace fathom {
namespace {

struct BenchOptions {
  CommonOptions common;
  std::string shape, write;
  std::vector<std::string> beside;  // --attend methods
  std::string prefill = "512", depth = "0", decode = "32";
  int sequences = 1;
  int repeat = 3;
  bool json = false;
};

/// Before the runs of a measurement, at most this many tokens warm caches and pages up.
constexpr int64_t kWarmUpTokens = 512;

/// Beyond these shares of time a figure says so: chosen what to attend to, lost to other programs.
constexpr double kWorthSaying = 0.01, kDisturbed = 0.02;

/// One measured figure.
struct Figure {
  const char* test;  // "prefill" or "decode"
  std::string attend = {};
  int64_t tokens, depth;             // of each sequence
  int64_t sequences = 1;             // read or generated together
  double operations = 0, bytes = 0;  // multiply-adds and bytes of weights and pages that one run needs
  std::vector<double> seconds = {};  // of the runs, sorted
  double speed_up = 1;               // beside the first method: the median over rounds
  MachineLimits limits = {};         // measured just before and after the runs, whichever was larger
  AttentionCount attention = {};
  double waited = 0;      // share of the threads' time in which other programs had the cores
  size_t peak_bytes = 0;  // resident memory

  bool is_prefill() const { return std::string_view(test) == "prefill"; }
  double median_seconds() const {
    const size_t half = seconds.size() / 2;
    return seconds.size() % 2 ? seconds[half] : (seconds[half - 1] + seconds[half]) / 2;
  }
  /// Of all sequences together.
  double tokens_per_second() const { return speed(median_seconds()); }
  double slowest() const { return speed(seconds.back()); }
  double fastest() const { return speed(seconds.front()); }
  /// Prefill of arithmetic, decode of reading.
  double share() const {
    return is_prefill() ? operations / median_seconds() / limits.multiply_adds_per_second
                        : bytes / median_seconds() / limits.read_bytes_per_second;
  }
  double share_of_bf16() const { return operations / median_seconds() / limits.bf16_multiply_adds_per_second; }

 private:
  double speed(double seconds_of_run) const { return static_cast<double>(tokens * sequences) / seconds_of_run; }
};

std::vector<int64_t> parse_sizes(const std::string& list, const char* option) {
  std::vector<int64_t> sizes;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    const auto size = parse_size(list.substr(begin, end - begin));
    if (!size || *size < 0) fail_usage(option, ": expected sizes like 512,4k, found ", quote(list));
    sizes.push_back(*size);
    begin = end + 1;
  }
  return sizes;
}

/// Multiply-adds of attention for tokens at positions [depth, depth + n) in all layers, and bytes of pages that one
/// token at `depth` reads.
double attention_multiply_adds(const ModelConfig& c, double depth, double n) {
  return static_cast<double>(c.layers) * c.heads * (c.key_dim + c.value_dim) * (depth * n + n * (n + 1) / 2);
}
double page_bytes(const Session& session, double depth) {
  const Memory& memory = session.memory();
  return static_cast<double>(memory.store().shape().bytes()) / kPageTokens * memory.layers() * memory.kv_heads() *
         depth;
}

class Bench {
 public:
  Bench(const BenchOptions& options, std::shared_ptr<const Model> model)
      : options_(options),
        model_(std::move(model)),
        runtime_(std::make_shared<Runtime>(options.common.threads)),
        meter_(runtime_->pool(), kernels()),
        methods_{options.common.attend} {
    methods_.insert(methods_.end(), options.beside.begin(), options.beside.end());
  }

  void run() {
    print_machine(meter_.limits());
    for (const int64_t depth : parse_sizes(options_.depth, "--depth")) {
      Sessions sessions;
      for (int i = 0; i < options_.sequences; ++i) {
        sessions.emplace_back(model_, runtime_, options_.common.session());
        if (depth > 0) sessions.back().fill_random(depth);
      }
      for (const int64_t n : parse_sizes(options_.prefill, "--prefill")) {
        if (n > 0) print_all(measure_prefill(sessions[0], n));
      }
      for (const int64_t n : parse_sizes(options_.decode, "--decode")) {
        if (n > 0) print_all(measure_decode(sessions, n));
      }
    }
  }

 private:
  using Sessions = std::vector<Session>;

  std::vector<int32_t> random_tokens(int64_t n) {
    std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(model_->config().vocabulary) - 1);
    std::vector<int32_t> tokens(n);
    for (int32_t& token : tokens) token = any(random_);
    return tokens;
  }

  /// The same figure for each method.
  std::vector<Figure> of_each(const Figure& figure) const {
    std::vector<Figure> figures;
    for (const std::string& attend : methods_) {
      figures.push_back(figure);
      figures.back().attend = attend;
    }
    return figures;
  }

  /// Times `work(forks, tokens)` on fresh forks of each method's sessions, the methods in turn.
  template <class Work>
  void measure(const std::vector<Sessions>& sessions, std::vector<Figure>& figures, const Work& work) {
    const std::vector<int32_t> tokens = random_tokens(figures[0].tokens);
    const MachineLimits before = meter_.limits();
    const double waited_before = seconds_waited();
    const Stopwatch all;
    std::vector<std::vector<double>> speed_ups(figures.size());
    Progress progress(concat("measuring ", figures[0].test, " at ", format_size(figures[0].depth)), "runs",
                      (options_.repeat + 1) * std::ssize(figures));
    int64_t runs = 0;
    for (int round = 0; round <= options_.repeat; ++round) {
      for (size_t m = 0; m < figures.size(); ++m) {
        throw_if_interrupted();
        Sessions forks;
        for (const Session& session : sessions[m]) forks.push_back(session.fork());
        const bool warm_up = round == 0;
        const AttentionCount attention_before = runtime_->work().attention.count();
        const Stopwatch watch;
        work(forks,
             std::span(tokens).first(warm_up ? std::min(figures[m].tokens, kWarmUpTokens) : figures[m].tokens));
        progress.update(++runs);
        if (warm_up) continue;
        figures[m].seconds.push_back(watch.seconds());
        figures[m].attention += runtime_->work().attention.count() - attention_before;
        speed_ups[m].push_back(figures[0].seconds.back() / figures[m].seconds.back());
      }
    }
    const double waited = (seconds_waited() - waited_before) / (all.seconds() * runtime_->pool().threads());
    const MachineLimits limits = larger(before, meter_.limits());
    for (size_t m = 0; m < figures.size(); ++m) {
      std::ranges::sort(figures[m].seconds);
      std::ranges::sort(speed_ups[m]);
      figures[m].speed_up = speed_ups[m][speed_ups[m].size() / 2];
      figures[m].waited = waited;
      figures[m].peak_bytes = peak_resident_bytes();
      figures[m].limits = limits;
    }
  }

  /// The sessions under each method.
  std::vector<Sessions> under_each(std::span<const Session> sessions) const {
    std::vector<Sessions> under(methods_.size());
    for (size_t m = 0; m < methods_.size(); ++m)
      for (const Session& session : sessions) under[m].push_back(session.fork(methods_[m]));
    return under;
  }
  /// The same token for each.
  static void step(Sessions& sessions, int32_t token) {
    std::vector<Session*> all;
    for (Session& session : sessions) all.push_back(&session);
    Session::step(all, std::vector<int32_t>(all.size(), token));
  }

  std::vector<Figure> measure_prefill(const Session& session, int64_t n) {
    const auto depth = static_cast<double>(session.length());
    const double operations = static_cast<double>(model_->network().multiply_adds() - output_multiply_adds()) * n +
                              output_multiply_adds() + attention_multiply_adds(model_->config(), depth, n);
    std::vector<Figure> figures =
        of_each({.test = "prefill", .tokens = n, .depth = session.length(), .operations = operations});
    measure(under_each({&session, 1}), figures,
            [](Sessions& sessions, std::span<const int32_t> tokens) { sessions[0].append(tokens); });
    return figures;
  }

  std::vector<Figure> measure_decode(const Sessions& sessions, int64_t n) {
    const int64_t depth = sessions[0].length();
    const double pages = page_bytes(sessions[0], static_cast<double>(depth) + (n + 1) / 2.0);
    const double bytes = model_->network().weight_bytes() + pages * options_.sequences;
    std::vector<Figure> figures = of_each(
        {.test = "decode", .tokens = n, .depth = depth, .sequences = options_.sequences, .bytes = bytes * n});
    std::vector<Sessions> under = under_each(sessions);
    if (depth > 0) {  // what a method prepares once for a text is not part of decoding
      const std::vector<int32_t> first = random_tokens(1);
      for (Sessions& each : under) step(each, first[0]);
    }
    measure(under, figures, [](Sessions& forks, std::span<const int32_t> tokens) {
      for (const int32_t token : tokens) step(forks, token);
    });
    return figures;
  }

  double output_multiply_adds() const {
    return static_cast<double>(model_->config().vocabulary) * model_->config().width;
  }

  void print_machine(const MachineLimits& limits) {
    if (options_.json) {
      return print_line({{"test", "machine"},
                         {"isa", kernels().isa},
                         {"processor", processor_name()},
                         {"threads", runtime_->pool().threads()},
                         {"read_bytes_per_second", limits.read_bytes_per_second},
                         {"flops_per_second", 2 * limits.multiply_adds_per_second},
                         {"bf16_flops_per_second", 2 * limits.bf16_multiply_adds_per_second}});
    }
    const ModelConfig& config = model_->config();
    std::ostringstream out;
    out << "machine  " << processor_name() << ", " << kernels().isa << ", " << runtime_->pool().threads()
        << " threads: reads " << format_bytes(limits.read_bytes_per_second) << "/s, " << std::setprecision(3)
        << 2 * limits.multiply_adds_per_second / 1e12 << " Tflop/s as the quantised matmul multiplies, "
        << 2 * limits.bf16_multiply_adds_per_second / 1e12 << " in bf16\n"
        << "model    " << config.name << ", " << format_bytes(static_cast<double>(model_->network().weight_bytes()))
        << " of weights; attend " << options_.common.attend << ", cache " << options_.common.cache << "\n\n"
        << "test       tokens    depth    tokens/s     (slowest to fastest)  share of limit  peak memory\n";
    write_out(out.str());
  }

  void print_all(const std::vector<Figure>& figures) const {
    for (const Figure& figure : figures) print(figure);
  }
  void print(const Figure& f) const { options_.json ? print_object(f) : print_row(f); }

  void print_object(const Figure& f) const {
    nlohmann::ordered_json line{{"test", f.test},
                                {"model", model_->config().name},
                                {"tokens", f.tokens},
                                {"depth", f.depth},
                                {"sequences", f.sequences},
                                {"threads", runtime_->pool().threads()},
                                {"attend", f.attend},
                                {"cache", options_.common.cache},
                                {"tokens_per_second", f.tokens_per_second()},
                                {"tokens_per_second_min", f.slowest()},
                                {"tokens_per_second_max", f.fastest()},
                                {"repeats", f.seconds.size()},
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
    if (methods_.size() > 1) out << std::setprecision(2) << "  " << f.speed_up << " × the first: " << f.attend;
    if (f.attention.selecting_share() > kWorthSaying)
      out << std::setprecision(1) << "  (selecting: " << 100 * f.attention.selecting_share() << "% of attention)";
    if (f.waited > kDisturbed) out << "  (too slow: other programs had " << 100 * f.waited << "% of the time)";
    write_out(out.str() + "\n");
  }

  static void print_line(const nlohmann::ordered_json& line) { write_out(line.dump() + "\n"); }

  const BenchOptions& options_;
  std::shared_ptr<const Model> model_;
  std::shared_ptr<Runtime> runtime_;
  MachineMeter meter_;
  std::vector<std::string> methods_;  // those of --attend and --beside
  std::mt19937 random_{1};
};

void run_bench(const BenchOptions& options) {
  if (options.repeat < 1) fail_usage("--repeat must be at least 1");
  if (options.sequences < 1) fail_usage("--sequences must be at least 1");
  if (!options.write.empty()) {
    if (options.shape.empty()) fail_usage("--write needs a --shape to write");
    return write_random_model(options.shape, options.write);
  }
  Bench(options, options.shape.empty() ? Model::open(options.common.model_path()) : Model::random(options.shape))
      .run();
}

}  // namespace

void add_bench(Command program) {
  auto options = std::make_shared<BenchOptions>();
  Command command = program.add_command("bench", "Measure prefill and decode as shares of what the machine can do");
  add_common_options(command, options->common);
  command.add_option("--shape", options->shape,
                     "a random model of a named shape and weight type instead of a file (" + shape_names() +
                         "), as llama-1b:q4_k");
  command
      .add_option("--write", options->write,
                  "write the random model of --shape as a GGUF file, for other engines, instead of measuring it")
      .type_name("FILE");
  command
      .add_option("--beside", options->beside,
                  "another --attend method, measured in turn with it, and how many times as fast; several")
      .type_name("METHOD")
      .one_value();
  command.add_option("--prefill", options->prefill, "tokens to read, comma separated; 0 for none").show_default();
  command
      .add_option("--depth", options->depth,
                  "tokens in memory beforehand (filled with random keys and values), comma separated")
      .show_default();
  command.add_option("--decode", options->decode, "tokens to generate one by one, comma separated; 0 for none")
      .show_default();
  command
      .add_option("--sequences", options->sequences,
                  "sequences of that depth generated together, each a token a step; tokens/s are of all")
      .show_default();
  command.add_option("--repeat", options->repeat, "runs of each measurement, of which the median is reported")
      .show_default();
  command.add_flag("--json", options->json, "one JSON object a line");
  command.footer(
      R"(The machine is measured in the same run, before and after each figure, with the threads in use: how fast it reads
memory, and how fast it multiplies, with the instructions that the quantised matmul uses and in bf16. Prefill is then a
share of its arithmetic (attention included), decode of its reading (weights and pages).

Examples:
  fathom bench --shape llama-1b:q4_k --prefill 512,4k --depth 0,4k
  fathom bench -m model.gguf --depth 16k --attend window:sink=4,size=2k --json
  fathom bench -m model.gguf --depth 32k --prefill 0 --beside quest:share=0.25 --beside hip --sequences 4
  fathom bench --shape llama-1b:q4_k --write llama-1b.gguf
)");
  command.callback([options] { run_bench(*options); });
}

}  // namespace fathom
