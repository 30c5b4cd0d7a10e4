#include "loaded_model.h"

#include <algorithm>

#include "base/interrupt.h"
#include "base/progress.h"
#include "base/stopwatch.h"

namespace fathom {

LoadedModel::LoadedModel(const CommonOptions& options)
    : model(Model::open(options.model_path())),
      tokenizer(std::make_unique<Tokenizer>(Vocabulary::read(*model->file()))),
      runtime(std::make_shared<Runtime>(static_cast<int>(options.threads))),
      engine(std::make_shared<Engine>(model, runtime, options.engine())),
      adapters(open_adapters(options.lora, model)) {}

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

int64_t read_after_common_prefix(Session& session, std::span<const int32_t> tokens) {
  if (!session.logits().empty() && std::ranges::equal(session.ids(), tokens)) return 0;
  const int64_t kept = session.rewind_to_prefix(tokens);
  read_tokens(session, tokens.subspan(kept));
  return std::ssize(tokens) - kept;
}

}  // namespace fathom
