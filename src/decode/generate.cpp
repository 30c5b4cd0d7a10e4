#include "decode/generate.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/stopwatch.h"
#include "decode/stop_matcher.h"

namespace fathom {
namespace {

/// From tokens to the text that is certain.
class TextOut {
 public:
  TextOut(const Tokenizer& tokenizer, const GenerateOptions& options,
          const std::function<void(std::string_view)>& on_text)
      : decoder_(tokenizer, options.show_special, options.continues), matcher_(options.stop), on_text_(on_text) {}

  void add(int32_t token) { emit(matcher_.add(decoder_.add(token))); }
  bool stopped() const { return matcher_.stopped(); }
  std::string finish() {
    emit(matcher_.add(decoder_.flush()));
    emit(matcher_.flush());
    return std::move(text_);
  }

 private:
  void emit(const std::string& text) {
    if (text.empty()) return;
    text_ += text;
    if (on_text_) on_text_(text);
  }

  StreamDecoder decoder_;
  StopMatcher matcher_;
  const std::function<void(std::string_view)>& on_text_;
  std::string text_;
};

/// Reads one token; false if it was interrupted, with the session as it was.
bool read(Session& session, int32_t token, Generated& result) {
  const Stopwatch watch;
  try {
    session.append({&token, 1});
  } catch (const Error& error) {
    if (error.kind() != Error::Kind::kInterrupted) throw;
    return false;
  }
  ++result.steps;
  result.seconds += watch.seconds();
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
  Generated result;
  TextOut out(tokenizer, options, on_text);
  std::vector<int32_t> history(prompt.begin(), prompt.end());
  const int64_t context = session.options().context;
  while (static_cast<int64_t>(result.tokens.size()) < options.max_tokens) {
    if (!result.tokens.empty()) {
      if (context > 0 && session.length() >= context) break;
      if (interrupted() || !read(session, result.tokens.back(), result)) {
        result.stop = StopReason::kInterrupted;
        break;
      }
    }
    const int32_t token = sampler.sample(session.logits(), history, session.length());
    if (!options.ignore_eos && tokenizer.ends_generation(token)) {
      result.stop = StopReason::kEos;
      break;
    }
    result.tokens.push_back(token);
    history.push_back(token);
    out.add(token);
    if (out.stopped()) {
      result.stop = StopReason::kString;
      break;
    }
  }
  result.text = out.finish();
  if (out.stopped()) result.stop = StopReason::kString;
  return result;
}

}  // namespace fathom
