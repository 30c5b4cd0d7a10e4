// fathom bench --test join-quality: the loss after contexts that were read alone and joined.
#include <algorithm>
#include <cmath>
#include <functional>
#include <iomanip>
#include <sstream>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "bench_documents.h"
#include "bench_quality.h"
#include "console.h"
#include "eval/likelihood.h"
#include "eval/statistics.h"
#include "tokens/prompt.h"

namespace fathom {
namespace {

constexpr int64_t kParts = 4;
constexpr int64_t kMeasured = 64;  // tokens of a text whose loss is measured
constexpr int64_t kCue = 16;       // first tokens of a repeated passage, which are not measured

/// A document in parts, each with BOS, and two texts that may follow.
struct JoinSample {
  std::vector<std::vector<int32_t>> parts;
  std::vector<int32_t> whole, next, repeated;
};

/// A way to join the parts of a document, and the losses of its samples in nats per token.
struct JoinWay {
  std::string name;
  std::function<Session(const std::vector<const Session*>& parts, const JoinSample& sample)> make;
  std::vector<double> next{}, repeated{};
};

class JoinQuality {
 public:
  JoinQuality(const QualityBenchOptions& options, const SessionOptions& session,
              const std::shared_ptr<const Model>& model, const std::shared_ptr<Runtime>& runtime)
      : options_(options),
        session_(session),
        engine_(std::make_shared<Engine>(model, runtime)),
        tokenizer_(Vocabulary::read(*model->file())),
        part_tokens_((options.tokens - kMeasured) / kParts) {
    if (part_tokens_ < kMeasured)
      fail_usage("--depth: expected at least ", (kParts + 1) * kMeasured, " tokens, found ", options.tokens);
    ways_.push_back({"read in sequence", [this](const auto&, const JoinSample& s) { return reading(s.whole); }});
    for (const std::string method :
         {"concat", "concat:reread=16", "concat:reread=64", "concat:reread=256", "set", "ape"}) {
      ways_.push_back({"--join " + method, [method](const auto& parts, const JoinSample&) {
                         return Session::join(parts, join_methods().make(method));
                       }});
    }
    for (const std::string method : {"concat", "set", "ape"}) {
      ways_.push_back({"--join " + method + ", parts in reverse order", [method](auto parts, const JoinSample&) {
                         std::ranges::reverse(parts);
                         return Session::join(parts, join_methods().make(method));
                       }});
    }
    ways_.push_back(
        {"the last part alone", [](const auto& parts, const JoinSample&) { return parts.back()->fork(); }});
  }

  void run() {
    const std::vector<std::string> documents = read_documents(options_.documents);
    Progress progress("joining", "documents", options_.samples);
    for (const std::string& document : documents) {
      if (samples() == options_.samples) break;
      throw_if_interrupted();
      const std::vector<int32_t> tokens = tokenizer_.encode(
          document.substr(0, static_cast<size_t>(kMaxTokenBytes * options_.tokens)), {false, false});
      if (std::ssize(tokens) < kParts * part_tokens_ + kMeasured) continue;
      measure(sample_of(tokens));
      progress.update(samples());
    }
    if (samples() == 0)
      fail_usage("--documents: expected texts of at least ", options_.tokens, " tokens (--depth), found none in ",
                 documents.size(), " files");
  }

  void print() const {
    std::ostringstream out;
    out << samples() << " documents of " << kParts << " parts of " << part_tokens_
        << " tokens; loss in nats per token (difference from reading in sequence, 95 % interval)\n"
        << std::left << std::setw(42) << "" << std::setw(35) << "text that follows"
        << "passage of another part, repeated\n"
        << std::fixed << std::setprecision(3);
    for (const JoinWay& way : ways_) {
      if (options_.json) print_line(way);
      out << std::left << std::setw(42) << way.name << std::setw(35) << figure(way.next, ways_[0].next)
          << figure(way.repeated, ways_[0].repeated) << "\n";
    }
    if (!options_.json) write_out(out.str());
  }

 private:
  static constexpr int64_t kMaxTokenBytes = 16;  // more text than is used need not be encoded

  int64_t samples() const { return std::ssize(ways_[0].next); }

  JoinSample sample_of(const std::vector<int32_t>& tokens) const {
    JoinSample sample;
    const auto piece = [&](int64_t begin, int64_t end) {
      return std::vector<int32_t>(tokens.begin() + begin, tokens.begin() + end);
    };
    const std::vector<int32_t> bos = bos_tokens(tokenizer_);
    const auto with_bos = [&](std::vector<int32_t> text) {
      text.insert(text.begin(), bos.begin(), bos.end());
      return text;
    };
    const int64_t all = kParts * part_tokens_;
    for (int64_t part = 0; part < kParts; ++part)
      sample.parts.push_back(with_bos(piece(part * part_tokens_, (part + 1) * part_tokens_)));
    sample.whole = with_bos(piece(0, all));
    sample.next = piece(all, all + kMeasured);
    // from the middle of the first, second or third part
    const int64_t begin = samples() % (kParts - 1) * part_tokens_ + (part_tokens_ - kMeasured) / 2;
    sample.repeated = piece(begin, begin + kMeasured);
    return sample;
  }

  Session reading(const std::vector<int32_t>& tokens) const {
    Session session(engine_, session_);
    session.append(tokens);
    return session;
  }

  void measure(const JoinSample& sample) {
    std::vector<Session> sessions;
    for (const std::vector<int32_t>& part : sample.parts) sessions.push_back(reading(part));
    std::vector<const Session*> parts;
    for (const Session& session : sessions) parts.push_back(&session);
    for (JoinWay& way : ways_) {
      const Session joined = way.make(parts, sample);
      way.next.push_back(loss(joined, sample.next, 1));
      way.repeated.push_back(loss(joined, sample.repeated, kCue));
    }
  }

  /// Returns the mean −ln p of the tokens from index `first` on, after the session.
  static double loss(const Session& session, const std::vector<int32_t>& text, int64_t first) {
    Session copy = session.fork();
    double sum = 0;
    AppendOptions append;
    append.needs_logits = [&](int64_t i) { return i + 1 >= first && i + 1 < std::ssize(text); };
    append.on_logits = [&](int64_t i, std::span<const float> logits) {
      sum += eval::log_sum_exp(logits) - logits[text[i + 1]];
    };
    copy.append(text, append);
    return sum / static_cast<double>(std::ssize(text) - first);
  }

  static std::vector<double> differences(const std::vector<double>& losses, const std::vector<double>& others) {
    std::vector<double> result;
    for (size_t i = 0; i < losses.size(); ++i) result.push_back(losses[i] - others[i]);
    return result;
  }

  /// Returns "2.345 (+0.123, 0.100 to 0.146)".
  static std::string figure(const std::vector<double>& losses, const std::vector<double>& sequential) {
    std::ostringstream out;
    out << std::fixed << std::setprecision(3) << eval::mean(losses);
    if (&losses == &sequential) return out.str();
    const std::vector<double> difference = differences(losses, sequential);
    out << " (" << std::showpos << eval::mean(difference);
    if (losses.size() > 1) {
      const eval::Interval interval = eval::t_interval(difference);
      out << ", " << interval.low << " to " << interval.high;
    }
    out << ")";
    return out.str();
  }

  void print_line(const JoinWay& way) const {
    write_out(Json{{"test", "join-quality"},
                   {"method", way.name},
                   {"samples", samples()},
                   {"part_tokens", part_tokens_},
                   {"next_nats_per_token", eval::mean(way.next)},
                   {"repeated_nats_per_token", eval::mean(way.repeated)},
                   {"next_difference", eval::mean(differences(way.next, ways_[0].next))},
                   {"repeated_difference", eval::mean(differences(way.repeated, ways_[0].repeated))}}
                  .dump() +
              "\n");
  }

  const QualityBenchOptions& options_;
  SessionOptions session_;
  std::shared_ptr<Engine> engine_;
  Tokenizer tokenizer_;
  int64_t part_tokens_;
  std::vector<JoinWay> ways_;
};

}  // namespace

void bench_join_quality(const QualityBenchOptions& options, const SessionOptions& session,
                        const std::shared_ptr<const Model>& model, const std::shared_ptr<Runtime>& runtime) {
  JoinQuality quality(options, session, model, runtime);
  quality.run();
  quality.print();
}

}  // namespace fathom
