#pragma once

#include <memory>
#include <string>

#include "eval/trial.h"
#include "paths.h"

namespace fathom::eval {

/// Returns the small model in models/ with its tokenizer, for evaluations.
inline const EvalModel& seedling() {
  static const EvalModel model = [] {
    const std::string path = test::seedling_path();
    EvalModel seedling{"seedling", "1", Model::open(path), nullptr, std::make_shared<Runtime>(2), nullptr};
    seedling.tokenizer = std::make_shared<Tokenizer>(Vocabulary::read(*seedling.model->file()));
    return seedling;
  }();
  return model;
}

}  // namespace fathom::eval
