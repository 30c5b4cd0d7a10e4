#include "decode/generate.h"

#include "decode/generation.h"

namespace fathom {

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
                   const GenerateOptions& options, const std::function<void(std::string_view)>& on_text,
                   Drafter* drafter) {
  Generation text(session, tokenizer, sampler, prompt, options, drafter, on_text);
  Generation* const texts[] = {&text};
  while (!text.ended()) Generation::advance(texts);
  if (text.error()) std::rethrow_exception(text.error());
  return text.finish();
}

}  // namespace fathom
