// fathom score: measures how well a model predicts a text.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/stopwatch.h"
#include "commands.h"
#include "console.h"
#include "eval/likelihood.h"
#include "eval/machine.h"
#include "loaded_model.h"

namespace fathom {
namespace {

constexpr int64_t kFirstBucket = 512;  // positions; each later bucket ends at twice its first position

struct ScoreOptions {
  CommonOptions common;
  std::string file;
  int64_t window = 0;  // tokens; 0: the whole text is one window
  bool json = false;
};

/// Returns −ln of the softmax probability of `token`, in nats.
double negative_log_likelihood(std::span<const float> logits, int32_t token) {
  return eval::log_sum_exp(logits) - logits[token];
}

/// Sums of negative log-likelihood by position. A token's position is the number of tokens before it in its window.
class ScoreByPosition {
 public:
  void add(int64_t position, double nats) {
    size_t bucket = 0;
    while (position >= end(bucket)) ++bucket;
    if (bucket >= buckets_.size()) buckets_.resize(bucket + 1);
    buckets_[bucket].nats += nats;
    ++buckets_[bucket].tokens;
    nats_ += nats;
    ++tokens_;
    end_ = std::max(end_, position + 1);
  }
  int64_t tokens() const { return tokens_; }
  double nll() const { return nats_ / static_cast<double>(tokens_); }

  struct Row {
    int64_t from, to, tokens;
    double nll;
  };
  /// Returns the buckets that have tokens. The last one ends after the last scored position.
  std::vector<Row> rows() const {
    std::vector<Row> rows;
    for (size_t i = 0; i < buckets_.size(); ++i) {
      const auto& [nats, tokens] = buckets_[i];
      if (tokens == 0) continue;
      rows.push_back({i == 0 ? 0 : end(i - 1), std::min(end(i), end_), tokens, nats / static_cast<double>(tokens)});
    }
    return rows;
  }

 private:
  static int64_t end(size_t bucket) { return kFirstBucket << bucket; }

  struct Bucket {
    double nats = 0;
    int64_t tokens = 0;
  };
  std::vector<Bucket> buckets_;
  double nats_ = 0;
  int64_t tokens_ = 0, end_ = 0;
};

/// Scores all tokens but the first. Positions are counted from token `start`; the tokens before it are BOS.
void score_window(Session& session, std::span<const int32_t> tokens, int64_t start, ScoreByPosition& score,
                  const std::function<void(int64_t)>& progress) {
  const auto count = static_cast<int64_t>(tokens.size());
  AppendOptions append;
  append.needs_logits = [&](int64_t index) { return index + 1 < count; };
  append.on_logits = [&](int64_t index, std::span<const float> logits) {
    score.add(index + 1 - start, negative_log_likelihood(logits, tokens[index + 1]));
  };
  append.progress = progress;
  session.append(tokens, append);
}

ScoreByPosition score_text(const LoadedModel& loaded, const ScoreOptions& options,
                           const std::vector<int32_t>& text) {
  const std::vector<int32_t> start = bos_tokens(*loaded.tokenizer);
  const auto count = static_cast<int64_t>(text.size());
  const int64_t window = options.window > 0 ? options.window : count;
  Progress progress("scoring", "tokens", count);
  ScoreByPosition score;
  for (int64_t begin = 0; begin < count; begin += window) {
    std::vector<int32_t> tokens = start;
    tokens.insert(tokens.end(), text.begin() + begin, text.begin() + std::min(begin + window, count));
    Session session = loaded.session(options.common);
    score_window(session, tokens, static_cast<int64_t>(start.size()), score, [&](int64_t done) {
      progress.update(begin + done);
      throw_if_interrupted();
    });
  }
  if (score.tokens() == 0)
    fail(input_name(options.file), ": nothing to score: the text needs a token after the first");
  return score;
}

/// The cost of scoring.
struct Cost {
  double tokens_per_second;
  size_t peak_bytes;
};

void print_json(const ScoreByPosition& score, const Cost& cost) {
  Json by_position = Json::array();
  for (const ScoreByPosition::Row& row : score.rows()) {
    by_position.push_back({{"from", row.from}, {"to", row.to}, {"nll", row.nll}, {"tokens", row.tokens}});
  }
  const Json line = {{"tokens", score.tokens()},
                     {"nll", score.nll()},
                     {"perplexity", std::exp(score.nll())},
                     {"by_position", by_position},
                     {"tokens_per_second", cost.tokens_per_second},
                     {"peak_rss_bytes", cost.peak_bytes}};
  write_out(line.dump() + "\n");
}

void print_table(const ScoreByPosition& score, const Cost& cost) {
  char line[160];
  std::snprintf(line, sizeof line, "%lld tokens, %.4f nats per token, perplexity %.4g\n",
                static_cast<long long>(score.tokens()), score.nll(), std::exp(score.nll()));
  std::string text = line;
  std::snprintf(line, sizeof line, "read at %.0f tokens per second, peak memory %s\n", cost.tokens_per_second,
                format_bytes(static_cast<double>(cost.peak_bytes)).c_str());
  text += line;
  std::snprintf(line, sizeof line, "%12s %12s %10s %10s\n", "from", "to", "tokens", "nll");
  text += line;
  for (const ScoreByPosition::Row& row : score.rows()) {
    std::snprintf(line, sizeof line, "%12lld %12lld %10lld %10.4f\n", static_cast<long long>(row.from),
                  static_cast<long long>(row.to), static_cast<long long>(row.tokens), row.nll);
    text += line;
  }
  write_out(text);
}

void run_score(const ScoreOptions& options) {
  const std::string text = read_input(options.file);
  const LoadedModel loaded(options.common);
  EncodeOptions encoding;
  encoding.add_bos_eos = false;
  const std::vector<int32_t> tokens = loaded.tokenizer->encode(text, encoding);
  const Stopwatch watch;
  const ScoreByPosition score = score_text(loaded, options, tokens);
  const Cost cost{rate(static_cast<int64_t>(tokens.size()), watch.seconds()), eval::peak_resident_bytes()};
  if (options.json) {
    print_json(score, cost);
  } else {
    print_table(score, cost);
  }
}

}  // namespace

void add_score(Command program) {
  auto o = std::make_shared<ScoreOptions>();
  Command command = program.add_command("score", "Measure how well a model predicts a text, by position");
  command.add_option("-f,--file", o->file, "text to score; - is standard input").type_name("FILE").required();
  add_size_option(command, "--window", o->window, 1,
                  "split the text into windows of SIZE tokens and score each on its own; more gives tokens more "
                  "context [the whole text]");
  o->common.methods.cache = "f32";  // results are for comparison of models, so pages are not rounded
  add_common_options(command, o->common);
  command.add_flag(
      "--json", o->json,
      "print one JSON object: tokens, nll, perplexity, by_position, tokens_per_second, peak_rss_bytes");
  command.footer(
      R"(nll (negative log-likelihood) is the mean of -ln p(token | tokens before it), in nats; less is better. Perplexity is
exp(nll). A token without a token before it is not scored. The position of a token is the number of tokens before it
in its window, BOS not counted.

Examples:
  fathom score -m model.gguf -f book.txt
  fathom score -f book.txt --window 1k --json
)");
  command.callback([o] { run_score(*o); });
}

}  // namespace fathom
