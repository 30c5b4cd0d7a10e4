#include "train/training_data.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/format.h"
#include "base/registry.h"
#include "train/tokenizer_training.h"
#include "train/training_tasks.h"
#include "train/vocabulary_file.h"

namespace fathom::train {
namespace {

constexpr uint64_t kHeldoutSeed =
    0x9e3779b97f4a7c15;  // XORed with the seed: held-out tasks differ from those of training

int32_t level_of(int64_t length) { return std::countr_zero(static_cast<uint64_t>(length)); }

void train_tokenizer(const TrainConfig& config) {
  const TrainConfig::NewTokenizer& training = config.new_tokenizer;
  std::vector<std::string> texts;
  for (const TrainConfig::Source& source : config.data.sources) {
    const int64_t bytes = training.sample_bytes / std::ssize(config.data.sources);
    for (std::string& text : sample_paragraphs(Corpus(source.path), bytes, static_cast<uint64_t>(config.seed)))
      texts.push_back(std::move(text));
  }
  const std::string model =
      train_sentence_piece(texts, {static_cast<int32_t>(training.pieces), training.character_coverage});
  GgufWriter writer;
  write_vocabulary(writer, vocabulary_of_sentence_piece(model));
  writer.write(config.tokenizer);
}

/// Returns the path of a corpus's token store, such as "tokens/train-1f2e3d4c5b6a7988.tokens". Makes the folder.
std::string store_path(const TrainConfig& config, const std::string& corpus) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::create_directories(config.data.tokens, error);
  if (error) fail("data.tokens: cannot create the folder ", config.data.tokens, ": ", error.message());
  const fs::path path = fs::absolute(corpus).lexically_normal();
  char hash[17];
  std::snprintf(hash, sizeof(hash), "%016llx", static_cast<unsigned long long>(hash_content(path.string())));
  const std::string name = path.filename().string();
  return (fs::path(config.data.tokens) / concat(name.substr(0, name.find('.')), "-", hash, ".tokens")).string();
}

std::vector<TaskKind> task_kinds(const TrainConfig::Tasks& tasks) {
  std::vector<TaskKind> kinds;
  const TaskSources known = training_tasks();
  if (tasks.kinds.empty()) {
    for (const auto& task : known) kinds.push_back({task, 1.0});
  }
  for (const TrainConfig::TaskKind& kind : tasks.kinds) {
    const auto found = std::ranges::find_if(known, [&](const auto& task) { return task->name() == kind.name; });
    if (found == known.end()) {
      std::vector<std::string> names;
      for (const auto& task : known) names.push_back(task->name());
      fail_unknown_method("data.tasks.kinds", kind.name, names);
    }
    kinds.push_back({*found, kind.weight});
  }
  return kinds;
}

}  // namespace

TrainingData::TrainingData(const TrainConfig& config) {
  if (config.data.sources.empty()) fail_usage("data.sources is empty, expected a folder or archive of texts");
  const std::vector<TaskKind> kinds = task_kinds(config.data.tasks);
  open_tokenizer(config);
  landmarks_.tokens = config.model.landmark_block;
  if (landmarks_ && unknown_token() == kNoToken) {
    fail_usage("model.landmark_block is ", landmarks_.tokens,
               ", but the tokenizer has no unknown token, which serves as landmark");
  }
  const auto store = [&](const std::string& path) {
    return tokenize_corpus(Corpus(path), *tokenizer_, store_path(config, path));
  };
  for (const TrainConfig::Source& source : config.data.sources) sources_.push_back(store(source.path));
  if (!config.data.heldout.empty()) heldout_store_.emplace(store(config.data.heldout));
  make_batches(config, kinds);
  make_heldout(config, kinds);
}

int64_t TrainingData::tokens() const {
  return std::accumulate(sources_.begin(), sources_.end(), int64_t{0},
                         [](int64_t sum, const TokenStore& store) { return sum + store.tokens(); });
}

void TrainingData::open_tokenizer(const TrainConfig& config) {
  if (config.tokenizer.empty())
    fail_usage("tokenizer is empty, expected a GGUF file; with new_tokenizer.pieces a missing file is made");
  if (!std::filesystem::exists(config.tokenizer)) {
    if (config.new_tokenizer.pieces == 0) {
      fail_usage("tokenizer: ", quote(config.tokenizer), " does not exist; set new_tokenizer.pieces to train it");
    }
    train_tokenizer(config);
  }
  tokenizer_file_.emplace(Gguf::open(config.tokenizer));
  tokenizer_ = std::make_unique<const Tokenizer>(Vocabulary::read(*tokenizer_file_));
}

void TrainingData::make_batches(const TrainConfig& config, const std::vector<TaskKind>& kinds) {
  const TrainConfig::Data& data = config.data;
  const double shares = std::accumulate(data.sources.begin(), data.sources.end(), 0.0,
                                        [](double sum, const auto& source) { return sum + source.share; });
  std::vector<AlternatingBatches::Source> sources;
  for (size_t i = 0; i < sources_.size(); ++i) {
    const double steps = static_cast<double>(config.steps) * data.sources[i].share / shares;
    const double epoch = static_cast<double>(sources_[i].tokens()) /
                         (static_cast<double>(config.batch_tokens) * (1 - data.tasks.share));
    const double cycles = static_cast<double>(data.lengths.cycles) * epoch / std::max(1.0, steps);
    const DecompositionOptions decomposition{
        .min_level = level_of(data.lengths.shortest),
        .max_level = level_of(data.lengths.longest),
        .batch_tokens = config.batch_tokens,
        .cycles = static_cast<int32_t>(std::clamp(std::round(cycles), 1.0, 1e6)),
        .curriculum = data.lengths.order == "uniform" ? Curriculum::kUniform : Curriculum::kGrow,
        .spread = data.lengths.spread,
        .seed = static_cast<uint64_t>(config.seed) + i};
    const MixtureOptions options{data.tasks.share, {data.tasks.answer_weight, data.tasks.rest_weight}};
    sources.push_back({std::make_unique<Mixture>(sources_[i], *tokenizer_, kinds, decomposition, options),
                       data.sources[i].share});
  }
  batches_ = with_landmarks(std::make_unique<AlternatingBatches>(std::move(sources)));
}

std::unique_ptr<BatchSource> TrainingData::with_landmarks(std::unique_ptr<BatchSource> source) const {
  if (!landmarks_) return source;
  return std::make_unique<LandmarkBatches>(std::move(source), landmarks_, unknown_token());
}

void TrainingData::make_heldout(const TrainConfig& config, const std::vector<TaskKind>& kinds) {
  const int64_t longest = config.data.lengths.longest;
  const auto add = [&](const std::string& name, std::unique_ptr<BatchSource> source, int64_t batches) {
    heldout_sources_.push_back(with_landmarks(std::move(source)));
    heldout_.push_back({name, heldout_sources_.back().get(), batches});
  };
  if (heldout_store_) {
    const int32_t level = level_of(longest);
    const DecompositionOptions rows{
        .min_level = level, .max_level = level, .batch_tokens = config.batch_tokens, .cycles = 1};
    add("books",
        std::make_unique<Mixture>(*heldout_store_, *tokenizer_, std::vector<TaskKind>{}, rows, MixtureOptions{}),
        config.evaluation.batches);
  }
  if (config.data.tasks.share == 0) return;
  for (const TaskKind& kind : kinds) {
    TaskRows rows(heldout_store_ ? *heldout_store_ : sources_[0], *tokenizer_, {kind}, {.answer = 1, .rest = 0});
    add(kind.task->name(),
        std::make_unique<TaskBatches>(std::move(rows), config.batch_tokens / longest, longest,
                                      static_cast<uint64_t>(config.seed) ^ kHeldoutSeed),
        1);
  }
}

AlternatingBatches::AlternatingBatches(std::vector<Source> sources)
    : sources_(std::move(sources)), taken_(sources_.size()) {
  double sum = 0;
  for (size_t i = 0; i < sources_.size(); ++i) {
    if (!(sources_[i].share > 0)) fail_usage("data.sources[", i, "].share: expected above 0");
    sum += sources_[i].share;
  }
  for (Source& source : sources_) source.share /= sum;
}

Batch AlternatingBatches::batch(int64_t step) {
  if (step < step_) {
    step_ = 0;
    std::ranges::fill(taken_, 0);
  }
  for (;; ++step_) {
    size_t next = 0;
    const auto deficit = [&](size_t i) {
      return sources_[i].share * static_cast<double>(step_ + 1) - static_cast<double>(taken_[i]);
    };
    for (size_t i = 1; i < sources_.size(); ++i) {
      if (deficit(i) > deficit(next)) next = i;
    }
    if (step_ == step) return sources_[next].batches->batch(taken_[next]);
    ++taken_[next];
  }
}

}  // namespace fathom::train
