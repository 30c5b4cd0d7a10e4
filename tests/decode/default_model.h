#pragma once

#include <memory>
#include <string>

#include "paths.h"
#include "session/session.h"
#include "tokens/tokenizer.h"

namespace fathom::test {

/// The default model of the tests, loaded once.
struct DefaultModel {
  std::shared_ptr<const Model> model = Model::open(seedling_path());
  Tokenizer tokenizer{Vocabulary::read(*model->file())};
  std::shared_ptr<Runtime> runtime = std::make_shared<Runtime>(2);
};
inline DefaultModel& loaded() {
  static DefaultModel instance;
  return instance;
}

/// Returns a session that has read the prompt.
inline Session read(const std::string& prompt) {
  Session session(loaded().model, loaded().runtime);
  session.append(loaded().tokenizer.encode(prompt));
  return session;
}

}  // namespace fathom::test
