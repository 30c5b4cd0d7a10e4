#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/method_specs.h"
#include "context/reader.h"
#include "eval/prompts.h"
#include "eval/sample.h"
#include "session/session.h"

namespace fathom::eval {

/// A model under evaluation.
struct EvalModel {
  std::string name;  // of its file, without the ending
  std::string id;    // tells files apart that have the same name
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<Runtime> runtime;
  std::shared_ptr<const ChatTemplate> chat;  // null: samples are put as plain text
};

struct TrialOptions {
  int64_t chunk = 512;         // tokens read at once
  int64_t concurrency = 1;     // samples answered together
  bool share_prefill = false;  // contexts are read densely, once for all methods; only the rest under each method
};

/// What a model made of a sample under a method.
struct Outcome {
  Answer answer;
  std::vector<int32_t>
      tokens;  // of the answer, the end of generation included; of a kForced sample the likeliest ones
  const char* stop = "";
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;  // of all samples answered together; 0: nothing was decoded
  AttentionCount reading;               // of the sample's prompt
  AttentionCount answering;             // of all samples answered together
  size_t cache_bytes = 0;               // pages of the sequence at its end
  size_t peak_rss_bytes = 0;            // of the process while its samples were run
  std::optional<double>
      same;  // generated: 1 if the baseline's text, else 0; kForced: share of the same likeliest tokens
  std::optional<double> kl;  // mean KL(baseline ‖ method) over the baseline's answer tokens, nats
};

/// Some samples of one task, to be run under one method after the other.
class Trial {
 public:
  /// samples and prompts: in step; they and the model outlive this. Samples of one group share the reading of what
  /// their prompts have in common. progress: tokens read so far of the current run.
  Trial(const EvalModel& model, std::span<const Sample> samples, std::span<const Prompt> prompts,
        TrialOptions options, std::function<void(int64_t tokens)> progress);

  /// Runs the chosen samples; outcomes in their order. The outcomes of the first run are the baseline of later
  /// ones, where they ran the same samples and `compare` is set. Throws Error, also when interrupted.
  std::vector<Outcome> run(const MethodSpecs& method, std::span<const size_t> chosen, bool compare);

 private:
  struct Baseline {
    std::string text;
    std::vector<int32_t> tokens;
    std::vector<std::vector<float>> logits;  // of the first answer tokens
  };
  struct Replay {  // of the baseline's answer from where another method's differs
    size_t sample;
    size_t index;  // of the answer token to be read next
    Session session;
  };
  class Comparison;

  SessionOptions session_options(const MethodSpecs& method) const;
  Session read(const MethodSpecs& method, size_t sample, Outcome& outcome);
  Session read_kept(const MethodSpecs& method, const Reader& reader, size_t index, Outcome& outcome);
  Session read_shared(const MethodSpecs& method, size_t sample, int64_t tokens, Outcome& outcome);
  void append(Session& session, std::span<const int32_t> tokens, const AppendOptions& options = {});
  void answer(std::span<const size_t> chosen, std::vector<Session>& sessions, std::span<Outcome> outcomes,
              bool compare);
  void force(const MethodSpecs& method, size_t sample, Outcome& outcome, bool compare);
  void replay(std::vector<Replay>& replays, std::vector<Comparison>& comparisons);

  const EvalModel& model_;
  std::span<const Sample> samples_;
  std::span<const Prompt> prompts_;
  TrialOptions options_;
  std::function<void(int64_t)> progress_;
  int64_t shared_tokens_ = 0;              // that all prompts begin with, if they are of one group
  std::map<std::string, Session> shared_;  // what is read once: by method, or by sample and what must agree
  std::map<size_t, Baseline> baselines_;
  bool first_run_ = true;
  int64_t tokens_read_ = 0;
};

}  // namespace fathom::eval
