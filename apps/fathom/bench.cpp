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
  std::string shape;
  std::string prefill = "512", depth = "0", decode = "32";
  int repeat = 3;
  bool json = false;
};

/// One measured figure.
struct Figure {
  const char* test;  // "prefill" or "decode"
  int64_t tokens, depth;
  double tokens_per_second, share;
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

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
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
      : options_(options), model_(std::move(model)), runtime_(std::make_shared<Runtime>(options.common.threads)) {}

  void run() {
    limits_ = measure_machine(runtime_->pool(), kernels());
    print_machine();
    for (const int64_t depth : parse_sizes(options_.depth, "--depth")) {
      Session session(model_, runtime_, options_.common.session());
      if (depth > 0) session.fill_random(depth);
      for (const int64_t n : parse_sizes(options_.prefill, "--prefill")) {
        if (n > 0) print(measure_prefill(session, n));
      }
      for (const int64_t n : parse_sizes(options_.decode, "--decode")) {
        if (n > 0) print(measure_decode(session, n));
      }
    }
  }

 private:
  std::vector<int32_t> random_tokens(int64_t n) {
    std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(model_->config().vocabulary) - 1);
    std::vector<int32_t> tokens(n);
    for (int32_t& token : tokens) token = any(random_);
    return tokens;
  }

  /// Median seconds of `work` on fresh forks of the session, after one run that warms caches and pages up.
  template <class Work>
  double median_seconds(const Session& session, const Work& work) {
    std::vector<double> seconds;
    for (int i = 0; i <= options_.repeat; ++i) {
      throw_if_interrupted();
      Session fork = session.fork();
      const Stopwatch watch;
      work(fork);
      if (i > 0) seconds.push_back(watch.seconds());
    }
    return median(seconds);
  }

  Figure measure_prefill(const Session& session, int64_t n) {
    const std::vector<int32_t> tokens = random_tokens(n);
    const double seconds = median_seconds(session, [&](Session& s) { s.append(tokens); });
    const auto depth = static_cast<double>(session.length());
    const double operations = static_cast<double>(model_->network().multiply_adds() - output_multiply_adds()) * n +
                              output_multiply_adds() + attention_multiply_adds(model_->config(), depth, n);
    return {"prefill", n, session.length(), n / seconds, operations / seconds / limits_.multiply_adds_per_second};
  }

  Figure measure_decode(const Session& session, int64_t n) {
    const std::vector<int32_t> tokens = random_tokens(n);
    const double seconds = median_seconds(session, [&](Session& s) {
      for (int64_t i = 0; i < n; ++i) s.append({&tokens[i], 1});
    });
    const double bytes = model_->network().weight_bytes() +
                         page_bytes(session, static_cast<double>(session.length()) + (n + 1) / 2.0);
    return {"decode", n, session.length(), n / seconds, bytes * n / seconds / limits_.read_bytes_per_second};
  }

  double output_multiply_adds() const {
    return static_cast<double>(model_->config().vocabulary) * model_->config().width;
  }

  void print_machine() const {
    if (options_.json) {
      return print_line({{"test", "machine"},
                         {"isa", kernels().isa},
                         {"threads", runtime_->pool().threads()},
                         {"read_bytes_per_second", limits_.read_bytes_per_second},
                         {"flops_per_second", 2 * limits_.multiply_adds_per_second}});
    }
    const ModelConfig& config = model_->config();
    std::ostringstream out;
    out << "machine  " << kernels().isa << ", " << runtime_->pool().threads() << " threads: reads "
        << format_bytes(limits_.read_bytes_per_second) << "/s, " << std::setprecision(3)
        << 2 * limits_.multiply_adds_per_second / 1e12 << " Tflop/s as the quantised matmul multiplies\n"
        << "model    " << config.name << ", " << format_bytes(static_cast<double>(model_->network().weight_bytes()))
        << " of weights; attend " << options_.common.attend << ", cache " << options_.common.cache << "\n\n"
        << "test       tokens    depth    tokens/s   share of    limit  peak memory\n";
    write_out(out.str());
  }

  void print(const Figure& f) const {
    if (options_.json) {
      return print_line({{"test", f.test},
                         {"model", model_->config().name},
                         {"tokens", f.tokens},
                         {"depth", f.depth},
                         {"threads", runtime_->pool().threads()},
                         {"attend", options_.common.attend},
                         {"cache", options_.common.cache},
                         {"tokens_per_second", f.tokens_per_second},
                         {"share_of_limit", f.share},
                         {"peak_rss_bytes", peak_resident_bytes()}});
    }
    std::ostringstream out;
    out << std::left << std::setw(8) << f.test << std::right << std::setw(9) << f.tokens << std::setw(9) << f.depth
        << std::fixed << std::setprecision(2) << std::setw(12) << f.tokens_per_second << std::setprecision(1)
        << std::setw(10) << 100 * f.share << "%  "
        << (std::string_view(f.test) == "prefill" ? "multiply" : " reading") << std::setw(12)
        << format_bytes(static_cast<double>(peak_resident_bytes())) << "\n";
    write_out(out.str());
  }

  static void print_line(const nlohmann::ordered_json& line) { write_out(line.dump() + "\n"); }

  const BenchOptions& options_;
  std::shared_ptr<const Model> model_;
  std::shared_ptr<Runtime> runtime_;
  MachineLimits limits_;
  std::mt19937 random_{1};
};

void run_bench(const BenchOptions& options) {
  if (options.repeat < 1) fail_usage("--repeat must be at least 1");
  Bench(options, options.shape.empty() ? Model::open(options.common.model_path()) : Model::random(options.shape))
      .run();
}

}  // namespace

void add_bench(CLI::App& app) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command =
      app.add_subcommand("bench", "Measure prefill and decode as shares of what the machine can do");
  add_common_options(*command, options->common);
  command->add_option("--shape", options->shape,
                      "a random model of a named shape and weight type instead of a file (" + shape_names() +
                          "), as llama-1b:q4_k");
  command->add_option("--prefill", options->prefill, "tokens to read, comma separated; 0 for none")
      ->capture_default_str();
  command
      ->add_option("--depth", options->depth,
                   "tokens in memory beforehand (filled with random keys and values), comma separated")
      ->capture_default_str();
  command->add_option("--decode", options->decode, "tokens to generate one by one, comma separated; 0 for none")
      ->capture_default_str();
  command->add_option("--repeat", options->repeat, "runs of each measurement, of which the median is reported")
      ->capture_default_str();
  command->add_flag("--json", options->json, "one JSON object a line");
  command->footer(
      R"(The machine is measured first, with the threads in use: how fast it reads memory, and how fast it multiplies with the
instructions that the quantised matmul uses. Prefill is then a share of its arithmetic (attention included), decode of its
reading (weights and pages).

Examples:
  fathom bench --shape llama-1b:q4_k --prefill 512,4k --depth 0,4k
  fathom bench -m model.gguf --depth 16k --attend window:sink=4,size=2k --json
)");
  command->callback([options] { run_bench(*options); });
}

}  // namespace fathom
