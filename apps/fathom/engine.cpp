#include "engine.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "base/stopwatch.h"

namespace fathom {

Engine::Engine(const CommonOptions& options)
    : model(Model::open(options.model_path())),
      tokenizer(std::make_unique<Tokenizer>(Vocabulary::read(*model->file()))),
      runtime(std::make_shared<Runtime>(static_cast<int>(options.threads))) {}

std::vector<int32_t> beginning(const Tokenizer& tokenizer) {
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  if (vocabulary.add_bos && vocabulary.bos != kNoToken) return {vocabulary.bos};
  return {};
}

std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, std::string_view text, bool special) {
  EncodeOptions options;
  options.add_bos_eos = false;
  options.parse_special = special;
  const std::vector<int32_t> ids = tokenizer.encode(text, options);
  if (ids.empty()) fail("the prompt has no tokens");
  std::vector<int32_t> tokens = beginning(tokenizer);
  if (!tokens.empty() && ids.front() == tokens.front()) tokens.clear();
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  return tokens;
}

double read_tokens(Session& session, std::span<const int32_t> tokens) {
  const Stopwatch watch;
  Progress progress("reading", "tokens", static_cast<int64_t>(tokens.size()));
  AppendOptions options;
  options.progress = [&](int64_t done) {
    progress.update(done);
    throw_if_interrupted();
  };
  session.append(tokens, options);
  return watch.seconds();
}

}  // namespace fathom
