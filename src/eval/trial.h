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
#include "decode/drafter.h"
#include "decode/generate.h"
#include "eval/prompts.h"
#include "eval/read_context.h"
#include "eval/sample.h"
#include "session/session.h"

namespace fathom::eval {

/// A model under evaluation.
struct EvalModel {
  std::string name;  // file name without extension, and its adapters
  std::string id;    // distinguishes files with the same name
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<Runtime> runtime;
  std::shared_ptr<const ChatTemplate> chat;  // null: prompts are plain text
  std::vector<AdapterScale> adapters{};      // of all sessions
  std::shared_ptr<DraftMemory> draft_memory = std::make_shared<DraftMemory>();
};

struct TrialOptions {
  int64_t chunk = 512;      // tokens per prefill chunk
  int64_t concurrency = 1;  // samples decoded together
  /// Contexts are read once with dense attention for all methods; the rest is read under each method.
  bool share_prefill = false;
  DraftOptions draft{};       // how the tokens of answers are drafted; no methods: no drafts
  bool check_drafts = false;  // answers are also decoded without drafts, for Outcome::plain_text
  /// A context that was read before: the first tokens of prompts are taken from it; null: none.
  std::shared_ptr<const ReadContext> read_context{};

  /// Returns the method under which the context of a sample is read.
  MethodSpecs reading_method(const MethodSpecs& method, const Sample& sample) const;
};

/// Returns the number of first tokens of a sample's prompt whose logits are not needed: at most that many are taken
/// from a context that was read before.
int64_t unscored_tokens(const Sample& sample, const Prompt& prompt);

/// Returns the label of a method in records: its specs, and the options of the trial that are not the default.
std::string method_label(const MethodSpecs& method, const TrialOptions& options);

/// Result of a sample under a method.
struct Outcome {
  Answer answer;
  /// Tokens of the answer, including the end-of-generation token; for a kForced sample, the most likely tokens.
  std::vector<int32_t> tokens;
  const char* stop = "";       // reason for which generation ended
  int64_t context_tokens = 0;  // of the prompt, taken from TrialOptions::read_context
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;  // of all samples decoded together; 0: nothing was decoded
  double tokens_per_forward = 0;        // of the answer; 0: nothing was decoded, or without drafts
  AttentionCount reading;               // attention while the prompt was read
  AttentionCount answering;             // attention of all samples decoded together
  size_t cache_bytes = 0;               // pages and recurrent states of the sequence at its end
  size_t peak_rss_bytes = 0;            // of the process while its samples ran
  /// kGenerate: 1 if the text equals the baseline's, else 0; kForced: share of equal most likely tokens.
  std::optional<double> same;
  std::optional<double> kl;  // mean KL(baseline ‖ method) over tokens of the baseline's answer, in nats
  /// The text of the answer without drafts if its tokens differ from those with drafts, which is a fault of the
  /// program. Known if answers are compared or TrialOptions::check_drafts is set.
  std::optional<std::string> plain_text;
};

/// Runs samples of one task under one method after another.
class Trial {
 public:
  /// samples and prompts: of the same size; they and the model must outlive the trial. Samples of one group share
  /// the prefill of the common beginning of their prompts. progress: receives the tokens read so far in the current
  /// run.
  Trial(const EvalModel& model, std::span<const Sample> samples, std::span<const Prompt> prompts,
        TrialOptions options, std::function<void(int64_t tokens)> progress);

  /// Runs the chosen samples and returns their outcomes in order. With `compare`, outcomes of the first run are the
  /// baseline of later runs of the same samples. Throws Error, also when interrupted.
  std::vector<Outcome> run(const MethodSpecs& method, std::span<const size_t> chosen, bool compare);

 private:
  struct Baseline {
    std::string text;
    std::vector<int32_t> tokens;
    /// Logits of the first answer tokens; kForced: of a sample of the scored tokens, evenly spread.
    std::vector<std::vector<float>> logits;
  };
  /// A session that reads the baseline's answer from the token at which another method's answer differs.
  struct Replay {
    size_t sample;
    size_t index;  // index of the answer token to read next
    Session session;
  };
  class Comparison;

  SessionOptions session_options(const MethodSpecs& method) const;
  int64_t taken(size_t sample, int64_t limit) const;
  Session begin(const MethodSpecs& method, int64_t taken);
  Session read(const MethodSpecs& method, size_t sample, Outcome& outcome, std::vector<int32_t>& text);
  Session read_kept(const MethodSpecs& method, const Reader& reader, size_t index, Outcome& outcome,
                    std::vector<int32_t>& text);
  Session read_shared(const MethodSpecs& method, size_t sample, int64_t tokens, Outcome& outcome);
  void append(Session& session, std::span<const int32_t> tokens, const AppendOptions& options = {});
  std::vector<GenerateOptions> generate_options(std::span<const size_t> chosen) const;
  void answer(std::span<const size_t> chosen, std::vector<Session>& sessions,
              std::span<const std::vector<int32_t>> texts, std::span<Outcome> outcomes, bool compare);
  void answer_plainly(std::span<const size_t> chosen, std::vector<Session>& sessions, std::span<Outcome> outcomes,
                      bool compare);
  void answer_with_drafts(std::span<const size_t> chosen, std::vector<Session>& sessions,
                          std::span<const std::vector<int32_t>> texts, std::span<Outcome> outcomes, bool check);
  void force(const MethodSpecs& method, size_t sample, Outcome& outcome, bool compare);
  void replay(std::vector<Replay>& replays, std::vector<Comparison>& comparisons);

  const EvalModel& model_;
  std::span<const Sample> samples_;
  std::span<const Prompt> prompts_;
  TrialOptions options_;
  std::function<void(int64_t)> progress_;
  int64_t shared_tokens_ = 0;              // length of the common prefix of all prompts, if they are of one group
  std::map<std::string, Session> shared_;  // shared prefills by method, or by sample and method with share_prefill
  std::map<std::string, Session> opened_;  // TrialOptions::read_context by method
  std::map<size_t, Baseline> baselines_;
  bool first_run_ = true;
  int64_t tokens_read_ = 0;
};

}  // namespace fathom::eval
