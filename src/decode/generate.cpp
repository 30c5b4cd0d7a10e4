#include "decode/generate.h"

#include "base/error.h"
#include "base/stopwatch.h"
#include "decode/continuation.h"

namespace fathom {
namespace {

/// Appends one token, and adds to `steps` and `seconds`. Returns false if it was interrupted; the session is then
/// unchanged.
bool read(Session& session, int32_t token, int64_t& steps, double& seconds) {
  const Stopwatch watch;
  try {
    session.append({&token, 1});
  } catch (const Error& error) {
    if (error.kind() != Error::Kind::kInterrupted) throw;
    return false;
  }
  ++steps;
  seconds += watch.seconds();
  return true;
}

}  // namespace

const char* name(StopReason reason) {
  switch (reason) {
    case StopReason::kLength:
      return "length";
    case StopReason::kEos:
      return "eos";
    case StopReason::kString:
      return "string";
    case StopReason::kInterrupted:
      return "interrupted";
  }
  return "";
}

Generated generate(Session& session, const Tokenizer& tokenizer, Sampler& sampler, std::span<const int32_t> prompt,
                   const GenerateOptions& options, const std::function<void(std::string_view)>& on_text) {
  Continuation continuation(tokenizer, options, on_text);
  std::vector<int32_t> history(prompt.begin(), prompt.end());
  const int64_t context = session.options().context;
  const StopToken* stop = session.options().stop;
  int64_t steps = 0;
  double seconds = 0;
  while (!continuation.ended()) {
    if (history.size() > prompt.size()) {
      if (context > 0 && session.length() >= context) break;
      if ((stop && stop->stop_requested()) || !read(session, history.back(), steps, seconds)) {
        continuation.end(StopReason::kInterrupted);
        break;
      }
    }
    history.push_back(sampler.sample(session.logits(), history, session.length()));
    continuation.take(history.back());
  }
  Generated result = continuation.finish();
  result.steps = steps;
  result.seconds = seconds;
  return result;
}

}  // namespace fathom
