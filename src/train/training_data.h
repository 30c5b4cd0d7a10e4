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

/// What a config trains and evaluates on: texts cut into tokens, tasks, and how they come in batches.
class TrainingData {
 public:
  /// Reads, or makes and keeps, the tokenizer and the tokens of all texts, with progress. Throws Error (usage)
  /// naming the field of what the config lacks or gives wrongly, otherwise as the parts do.
  explicit TrainingData(const TrainConfig& config);

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const Gguf& tokenizer_file() const { return *tokenizer_file_; }
  BatchSource& batches() { return *batches_; }
  /// "books": the held-out texts; each kind of task by its name, its answers alone, from a seed of its own.
  const std::vector<HeldoutSet>& heldout() const { return heldout_; }
  int64_t tokens() const;  // of all sources
  /// What stands for a block of a net with landmarks: the vocabulary's unknown token, which no text of a vocabulary
  /// with byte tokens is cut into.
  int32_t landmark_token() const { return tokenizer_->vocabulary().unknown; }

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

/// Several sources in turn: of the first n steps each has its share, to within one step.
class TurnBatches final : public BatchSource {
 public:
  struct Source {
    std::unique_ptr<BatchSource> batches;
    double share = 1;
  };
  /// Throws Error (usage) unless all shares are above 0.
  explicit TurnBatches(std::vector<Source> sources);
  Batch batch(int64_t step) override;

 private:
  std::vector<Source> sources_;
  int64_t step_ = 0;            // whose turn comes next
  std::vector<int64_t> taken_;  // by each source, before step_
};

}  // namespace fathom::train
