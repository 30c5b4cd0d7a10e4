#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "context/methods.h"
#include "models/model.h"
#include "paths.h"

namespace fathom::test {

/// A fixture with a small model of models/. fathom-seedling was trained on 1,024 tokens and finds facts in its
/// context.
class SmallReader : public testing::Test {
 protected:
  static void SetUpTestSuite() { open("fathom-seedling-q8_0.gguf"); }
  static void open(const std::string& file) {
    model_ = Model::open(test::model_path(file));
    tokenizer_ = std::make_unique<Tokenizer>(Vocabulary::read(*model_->file()));
    runtime_ = std::make_shared<Runtime>(2);
  }

  ReaderContext reader_context(int64_t window = 1024) {
    return {[this](int layers) { return Session(model_, runtime_, {.layers = layers}); }, *tokenizer_, window,
            [this](int64_t done) { read_ = done; }};
  }
  static int64_t count(std::string_view text) {
    return std::ssize(tokenizer_->encode(text, {.add_bos_eos = false}));
  }

  static inline std::shared_ptr<const Model> model_;
  static inline std::unique_ptr<const Tokenizer> tokenizer_;
  static inline std::shared_ptr<Runtime> runtime_;
  int64_t read_ = 0;  // tokens, as reported by the last progress call
};

inline constexpr const char* kQuestion =
    "\nQuestion: What is the secret code of Anna?\nAnswer: The secret code of Anna is";

/// Returns `count` different filler sentences, with the fact before the one at index `fact_index`.
inline std::string long_text(int count, int fact_index) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    if (i == fact_index) text += "The secret code of Anna is 483920. ";
    text += "The captain walked " + std::to_string(i) + " miles down to the river and spoke of the weather. ";
  }
  return text;
}

}  // namespace fathom::test
