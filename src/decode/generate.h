#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "decode/sampler.h"
#include "session/session.h"
#include "tokens/tokenizer.h"

namespace fathom {

struct GenerateOptions {
  int64_t max_tokens = std::numeric_limits<int64_t>::max();
  std::vector<std::string> stop;  // the text ends before the first of these
  bool ignore_eos = false;        // goes on after end-of-generation tokens
  bool show_special = false;      // control tokens appear in the text
  bool continues = true;          // the text goes on from the prompt's: a leading space is text
};

enum class StopReason { kLength, kEos, kString, kInterrupted };
/// "length", "eos", "string", "interrupted".
const char* name(StopReason reason);

struct Generated {
  std::string text;
  std::vector<int32_t> tokens;  // without the end-of-generation token
  StopReason stop = StopReason::kLength;
  int64_t steps = 0;   // tokens read by the model, one at a time
  double seconds = 0;  // that it took
};

/// Continues a session whose newest tokens are `prompt` (what penalties look back on; the last one's logits are
/// there). The last token generated is chosen but not read: the session then holds prompt and tokens up to
/// session.length(). on_text gets whole characters as they become certain. A stop requested of SessionOptions::stop
/// ends it like a stop string. Throws Error for logits that are no numbers.
Generated generate(Session& session, const Tokenizer& tokenizer, Sampler& sampler, std::span<const int32_t> prompt,
                   const GenerateOptions& options = {},
                   const std::function<void(std::string_view)>& on_text = nullptr);

}  // namespace fathom
