#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "tokens/tokenizer.h"
#include "train/landmark_batches.h"
#include "train/mixture.h"
#include "train/train_config.h"
#include "train/trainer.h"

namespace fathom::train {

/// The data of a training run: tokenized texts, tasks, and the batches made of them.
class TrainingData {
 public:
  /// Opens the tokenizer and the token stores of all texts. Makes those that do not exist, with progress. Throws
  /// Error (usage) that names a missing or invalid field of the config, and Error as Corpus, TokenStore and
  /// Tokenizer.
  explicit TrainingData(const TrainConfig& config);

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const Gguf& tokenizer_file() const { return *tokenizer_file_; }
  BatchSource& batches() { return *batches_; }
  /// Returns the held-out sets: "books", the held-out texts, and one per kind of task, named after it, in which
  /// only answers have weight and whose seed differs from that of training.
  const std::vector<HeldoutSet>& heldout() const { return heldout_; }
  /// Returns the total number of tokens of all sources.
  int64_t tokens() const;
  /// Returns the vocabulary's unknown token, which serves as landmark and as placeholder of drafts. With byte
  /// tokens no text contains it.
  int32_t unknown_token() const { return tokenizer_->vocabulary().unknown; }

 private:
  void open_tokenizer(const TrainConfig& config);
  std::unique_ptr<BatchSource> with_landmarks(std::unique_ptr<BatchSource> source) const;

  void make_batches(const TrainConfig& config, const std::vector<TaskKind>& kinds);
  void make_heldout(const TrainConfig& config, const std::vector<TaskKind>& kinds);

  std::optional<const Gguf> tokenizer_file_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  Landmarks landmarks_;
  std::vector<TokenStore> sources_;
  std::optional<TokenStore> heldout_store_;
  std::unique_ptr<BatchSource> batches_;
  std::vector<std::unique_ptr<BatchSource>> heldout_sources_;
  std::vector<HeldoutSet> heldout_;
};

/// Alternates between several sources. Of the first n steps each source has its share, to within one step.
class AlternatingBatches final : public BatchSource {
 public:
  struct Source {
    std::unique_ptr<BatchSource> batches;
    double share = 1;
  };
  /// Throws Error (usage) unless all shares are above 0.
  explicit AlternatingBatches(std::vector<Source> sources);
  Batch batch(int64_t step) override;

 private:
  std::vector<Source> sources_;
  int64_t step_ = 0;            // the next step to assign
  std::vector<int64_t> taken_;  // steps of each source before step_
};

}  // namespace fathom::train
