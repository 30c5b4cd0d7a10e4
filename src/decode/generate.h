#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "decode/draft_report.h"
#include "decode/logprobs.h"
#include "decode/sampler.h"
#include "session/session.h"
#include "tokens/tokenizer.h"

namespace fathom {

class KnnLm;

struct GenerateOptions {
  int64_t max_tokens = std::numeric_limits<int64_t>::max();
  std::vector<std::string> stop;  // stop strings; the text ends before the first of them
  bool ignore_eos = false;        // continue after end-of-generation tokens
  bool show_special = false;      // control tokens appear in the text
  bool continues = true;          // the text continues that of the prompt: a leading space is kept
  /// Mixes the model's distribution with that of a datastore; null: none. The session must have read the prompt
  /// with the hidden states of the last layer (Session::keep_hidden).
  const KnnLm* knn = nullptr;
  /// Receives the probabilities of each token of the text, after its characters; empty: they are not computed.
  std::function<void(const TokenLogprobs&)> on_logprobs{};
  size_t top_logprobs = 0;  // most likely tokens that on_logprobs receives beside each token
};

enum class StopReason { kLength, kEos, kString, kInterrupted };
/// Returns "length", "eos", "string" or "interrupted".
const char* name(StopReason reason);

struct Generated {
  std::string text;
  std::vector<int32_t> tokens;  // without the end-of-generation token
  StopReason stop = StopReason::kLength;
  int64_t steps = 0;     // emitted tokens that the model has read
  int64_t forwards = 0;  // forward passes that read them
  double seconds = 0;    // duration of drafting, these passes, and choosing tokens
  DraftReport drafts{{}};
};

class Drafter;

/// Continues a session whose newest tokens are `prompt` and which has the logits of the last one. Penalties apply
/// to the tokens of `prompt` and the generated ones. The last sampled token is not read: it is the last token of
/// the result, or an end-of-generation token, which the result does not contain. on_text receives whole characters
/// as soon as they are final. A stop requested on SessionOptions::stop ends the generation without an error. Throws
/// Error if a logit is NaN or +∞. drafter: makes it faster (decode/drafter.h); null: no drafts. Several texts can
/// be generated together by the class Generation.
Generated generate(Session& session, const Tokenizer& tokenizer, Sampler& sampler, std::span<const int32_t> prompt,
                   const GenerateOptions& options = {},
                   const std::function<void(std::string_view)>& on_text = nullptr, Drafter* drafter = nullptr);

}  // namespace fathom
