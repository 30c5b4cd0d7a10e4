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
  const std::vector<int32_t> held = session.ids();
  int64_t common = std::ranges::mismatch(tokens, held).in1 - tokens.begin();
  if (common == std::ssize(held) && common == std::ssize(tokens) && !session.logits().empty()) return 0;
  common = std::min(common, std::ssize(tokens) - 1);  // the last token is read for its logits
  session.rewind(session.length() - common);
  read_tokens(session, tokens.subspan(common));
  return std::ssize(tokens) - common;
}

}  // namespace fathom
