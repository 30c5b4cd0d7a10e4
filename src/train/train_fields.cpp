#include "train/train_fields.h"

#include <algorithm>

#include "attend/landmarks.h"
#include "train/compress_kinds.h"
#include "train/draft_kinds.h"

namespace fathom::train {
namespace {

constexpr double kMaxCount = 1e12;    // upper limit of tokens and steps
constexpr double kLongest = 1 << 30;  // upper limit of lengths, tokens
constexpr bool kMayDiffer = true;

std::vector<std::string> draft_choices() {
  std::vector<std::string> names{"none"};
  for (const DraftTrainer& kind : draft_kinds()) names.push_back(kind.name);
  return names;
}

std::vector<std::string> compress_choices() {
  std::vector<std::string> names{"none"};
  for (const CompressTrainer& kind : compress_kinds()) names.push_back(kind.name);
  return names;
}

}  // namespace

const std::vector<TrainField>& train_fields() {
  using C = TrainConfig;
  using T = FieldTarget;
  static const std::vector<TrainField> fields{
      {"name", [](C& c, size_t) -> T { return &c.name; }, "name of the model", 0, 0, {}, kMayDiffer},
      {"tokenizer", [](C& c, size_t) -> T { return &c.tokenizer; },
       "GGUF file whose tokenizer is used for the texts and copied to the model"},
      {"start", [](C& c, size_t) -> T { return &c.start; },
       "GGUF file with the initial weights; empty: random weights"},
      {"new_tokenizer.pieces", [](C& c, size_t) -> T { return &c.new_tokenizer.pieces; },
       "vocabulary size of the tokenizer trained on the sources if the tokenizer file is missing; more gives "
       "shorter "
       "token sequences and a larger embedding; 0: no training",
       0, 1 << 20},
      {"new_tokenizer.sample_bytes", [](C& c, size_t) -> T { return &c.new_tokenizer.sample_bytes; },
       "bytes of the sources that a new tokenizer is trained on; more is slower and more representative", 1024,
       1e10},
      {"new_tokenizer.character_coverage", [](C& c, size_t) -> T { return &c.new_tokenizer.character_coverage; },
       "share of all characters that get their own token; more covers rarer characters", 0.98, 1},

      {"model.layers", [](C& c, size_t) -> T { return &c.model.layers; }, "layers; more is slower and learns more",
       1, 4096},
      {"model.width", [](C& c, size_t) -> T { return &c.model.width; },
       "width of the residual stream; more is slower and learns more", 1, 1 << 20},
      {"model.heads", [](C& c, size_t) -> T { return &c.model.heads; }, "query heads of a layer", 1, 4096},
      {"model.kv_heads", [](C& c, size_t) -> T { return &c.model.kv_heads; },
       "key/value heads of a layer; must divide heads; fewer save memory", 1, 4096},
      {"model.head_dim", [](C& c, size_t) -> T { return &c.model.head_dim; }, "dimensions of a head; must be even",
       2, 1024},
      {"model.ffn_width", [](C& c, size_t) -> T { return &c.model.ffn_width; },
       "inner width of the feed-forward layers; more is slower and learns more", 1, 1 << 20},
      {"model.vocabulary", [](C& c, size_t) -> T { return &c.model.vocabulary; },
       "vocabulary size; 0: that of the tokenizer", 0, 1 << 24},
      {"model.context", [](C& c, size_t) -> T { return &c.model.context; },
       "trained length that the model file states, tokens", 1, kLongest},
      {"model.sliding_window", [](C& c, size_t) -> T { return &c.model.sliding_window; },
       "newest tokens that each token attends to; 0: all", 0, kLongest},
      {"model.attention",
       [](C& c, size_t) -> T { return &c.model.attention; },
       "attention weights: softmax of the scores, or re-weighted softplus of the scores of unit queries and keys",
       0,
       0,
       {"softmax", "softplus"}},
      {"model.softplus_power", [](C& c, size_t) -> T { return &c.model.softplus_power; },
       "softplus: power of the re-weighting, 1 or more; more gives sharper attention; 0: none", 0, 100},
      {"model.landmark_block", [](C& c, size_t) -> T { return &c.model.landmark_block; },
       "tokens between landmarks, which are the tokenizer's unknown token; 0: no landmarks", 0, kMaxLandmarkTokens},
      {"model.tied_output", [](C& c, size_t) -> T { return &c.model.tied_output; },
       "whether the output matrix is the embedding matrix"},
      {"model.norm_eps", [](C& c, size_t) -> T { return &c.model.norm_eps; },
       "added to the mean square in an RMS norm", 1e-12, 0.1},
      {"model.rotary_base", [](C& c, size_t) -> T { return &c.model.rotary_base; },
       "base of the rotary frequencies; more suits longer texts", 2, 1e12},
      {"model.init_deviation", [](C& c, size_t) -> T { return &c.model.init_deviation; },
       "standard deviation of random initial matrices", 0, 10},

      {"draft.kind", [](C& c, size_t) -> T { return &c.draft.kind; },
       "draft source that is trained for the model in start; none: a model is trained", 0, 0, draft_choices()},
      {"draft.steps", [](C& c, size_t) -> T { return &c.draft.steps; },
       "heads, hidden-transfer (at most 4): tokens that a draft predicts", 1, kMaxDraftHeads},
      {"draft.blocks", [](C& c, size_t) -> T { return &c.draft.blocks; },
       "heads: residual blocks of a head; more is slower and learns more", 1, 64},
      {"draft.sequential", [](C& c, size_t) -> T { return &c.draft.sequential; },
       "heads: whether a head reads the drafted tokens before its own (Hydra) or not (Medusa)"},
      {"draft.own_output", [](C& c, size_t) -> T { return &c.draft.own_output; },
       "heads: whether a head has its own output matrix instead of the model's"},
      {"draft.transfer_layer", [](C& c, size_t) -> T { return &c.draft.transfer_layer; },
       "hidden-transfer: first layer that reads pseudo rows; lower is slower and learns more; 0: the middle", 0,
       4096},
      {"draft.heads", [](C& c, size_t) -> T { return &c.draft.heads; },
       "longspec: query heads of its self-attention; 0: those of the model", 0, 4096},
      {"draft.kv_heads", [](C& c, size_t) -> T { return &c.draft.kv_heads; },
       "longspec: key/value heads of its self-attention; 0: those of the model", 0, 4096},
      {"draft.head_dim", [](C& c, size_t) -> T { return &c.draft.head_dim; },
       "longspec: dimensions of a head of its self-attention; 0: those of the model", 0, 1024},
      {"draft.ffn_width", [](C& c, size_t) -> T { return &c.draft.ffn_width; },
       "longspec: inner width of its feed-forward layer; 0: that of the model", 0, 1 << 20},
      {"draft.window", [](C& c, size_t) -> T { return &c.draft.window; },
       "longspec: newest tokens that its self-attention reads", 1, kLongest},
      {"draft.max_offset", [](C& c, size_t) -> T { return &c.draft.max_offset; },
       "longspec: positions up to which rows are shifted in training, so that short rows train long positions", 0,
       1 << 20},
      {"draft.offset_share", [](C& c, size_t) -> T { return &c.draft.offset_share; },
       "longspec: share of the rows whose positions are shifted", 0, 1},
      {"draft.certainty", [](C& c, size_t) -> T { return &c.draft.certainty; },
       "lexical-unit: tokens to which the model in start gives a higher probability form units; more gives fewer "
       "units",
       0, 1},
      {"draft.ordinary_share", [](C& c, size_t) -> T { return &c.draft.ordinary_share; },
       "lexical-unit: share of the rows that are trained without placeholders", 0, 1},
      {"draft.length", [](C& c, size_t) -> T { return &c.draft.length; }, "lexical-unit: longest unit, tokens", 2,
       8},

      {"compress.kind", [](C& c, size_t) -> T { return &c.compress.kind; },
       "compression of contexts that is trained for the model in start; none: a model is trained", 0, 0,
       compress_choices()},
      {"compress.slots", [](C& c, size_t) -> T { return &c.compress.slots; },
       "lococo: entries that the cache is compressed to, even; cmr: states in the memory of a layer; more keep "
       "more",
       2, kLongest},
      {"compress.chunk", [](C& c, size_t) -> T { return &c.compress.chunk; },
       "lococo, cmr: tokens that are read between two updates of the memory", 1, kLongest},
      {"compress.kernel", [](C& c, size_t) -> T { return &c.compress.kernel; },
       "lococo: width of the convolution, odd; more mixes over a longer range", 1, 1023},
      {"compress.mixing", [](C& c, size_t) -> T { return &c.compress.mixing; },
       "lococo: initial share of the mixed entries; 0: entries are evicted", 0, 1},
      {"compress.raw_keys", [](C& c, size_t) -> T { return &c.compress.raw_keys; },
       "lococo: whether keys are mixed before rotation and get their mean position, or after rotation"},
      {"compress.segment", [](C& c, size_t) -> T { return &c.compress.segment; },
       "compllm: tokens of a segment, a multiple of factor; arc-encoder: tokens of a passage; 0: 20 for compllm, "
       "256 "
       "for arc-encoder",
       0, kLongest},
      {"compress.factor", [](C& c, size_t) -> T { return &c.compress.factor; },
       "compllm, arc-encoder: tokens per embedding; 0: 2 for compllm, 8 for arc-encoder", 0, 1024},
      {"compress.rank", [](C& c, size_t) -> T { return &c.compress.rank; },
       "compllm: rank of the adapter; cmr: dimensions of the queries of the memory; more learns more", 1, 1024},
      {"compress.context_share", [](C& c, size_t) -> T { return &c.compress.context_share; },
       "compllm, arc-encoder: share of a row, from its start, that is compressed", 0.01, 0.99},
      {"compress.dropped_layers", [](C& c, size_t) -> T { return &c.compress.dropped_layers; },
       "arc-encoder: last layers of the model that the encoder does not have", 0, 4096},
      {"compress.projector_width", [](C& c, size_t) -> T { return &c.compress.projector_width; },
       "arc-encoder: inner width of the projector; 0: two thirds of the model's width", 0, 1 << 20},
      {"compress.reconstruction_share", [](C& c, size_t) -> T { return &c.compress.reconstruction_share; },
       "arc-encoder: share of the rows whose compressed part is to be repeated instead of continued", 0, 1},
      {"compress.layer", [](C& c, size_t) -> T { return &c.compress.layer; },
       "cmr: layer before which the memory is read, from 1; 0: every layer", 0, 4096},
      {"compress.window", [](C& c, size_t) -> T { return &c.compress.window; },
       "cmr: newest tokens that attention reads; 0: those of the model", 0, kLongest},

      {"data.sources[].path", [](C& c, size_t i) -> T { return &c.data.sources[i].path; },
       "folder or tar archive of .txt and .md files"},
      {"data.sources[].share", [](C& c, size_t i) -> T { return &c.data.sources[i].share; },
       "relative share of the tokens of texts; more takes more from this source", 0, 1e6},
      {"data.heldout",
       [](C& c, size_t) -> T { return &c.data.heldout; },
       "folder or tar archive of documents to evaluate on; empty: none",
       0,
       0,
       {},
       kMayDiffer},
      {"data.tokens",
       [](C& c, size_t) -> T { return &c.data.tokens; },
       "folder for the tokenized texts, which later runs reuse",
       0,
       0,
       {},
       kMayDiffer},
      {"data.lengths.shortest", [](C& c, size_t) -> T { return &c.data.lengths.shortest; },
       "shortest sequence length, a power of two", 2, kLongest},
      {"data.lengths.longest", [](C& c, size_t) -> T { return &c.data.lengths.longest; },
       "longest sequence length, a power of two", 2, kLongest},
      {"data.lengths.order",
       [](C& c, size_t) -> T { return &c.data.lengths.order; },
       "grow: from short to long sequences; uniform: all lengths at all times",
       0,
       0,
       {"grow", "uniform"}},
      {"data.lengths.cycles", [](C& c, size_t) -> T { return &c.data.lengths.cycles; },
       "how often lengths grow from short to long during the run", 1, kMaxCount},
      {"data.lengths.spread", [](C& c, size_t) -> T { return &c.data.lengths.spread; },
       "whether long documents are cut so that every length gets about the same number of tokens"},
      {"data.tasks.share", [](C& c, size_t) -> T { return &c.data.tasks.share; },
       "share of the tokens that are long-context tasks instead of texts", 0, 1},
      {"data.tasks.answer_weight", [](C& c, size_t) -> T { return &c.data.tasks.answer_weight; },
       "loss weight of the tokens of answers; a token of a text has 1", 0, 1000},
      {"data.tasks.rest_weight", [](C& c, size_t) -> T { return &c.data.tasks.rest_weight; },
       "loss weight of the other tokens of a task", 0, 1000},
      {"data.tasks.kinds[].name", [](C& c, size_t i) -> T { return &c.data.tasks.kinds[i].name; }, "kind of task"},
      {"data.tasks.kinds[].weight", [](C& c, size_t i) -> T { return &c.data.tasks.kinds[i].weight; },
       "relative frequency of this kind of task", 1e-6, 1e6},

      {"batch_tokens", [](C& c, size_t) -> T { return &c.batch_tokens; },
       "tokens of a step; more is slower per step and gives less noisy gradients", 1, kMaxCount},
      {"accumulation", [](C& c, size_t) -> T { return &c.accumulation; },
       "parts in which a batch is computed; more saves memory", 1, kMaxCount},
      {"optimizer.kind",
       [](C& c, size_t) -> T { return &c.optimizer.kind; },
       "optimizer of the matrices of layers; other weights always use AdamW",
       0,
       0,
       {"adamw", "muon"}},
      {"optimizer.momentum", [](C& c, size_t) -> T { return &c.optimizer.momentum; },
       "Muon: decay of the mean of gradients; more averages over more steps", 0, 0.9999},
      {"optimizer.beta1", [](C& c, size_t) -> T { return &c.optimizer.beta1; },
       "AdamW: decay of the mean of gradients; more averages over more steps", 0, 0.9999},
      {"optimizer.beta2", [](C& c, size_t) -> T { return &c.optimizer.beta2; },
       "AdamW: decay of the mean of squared gradients; more averages over more steps", 0, 0.999999},
      {"optimizer.eps", [](C& c, size_t) -> T { return &c.optimizer.eps; },
       "AdamW: added to the root of the mean of squared gradients", 1e-16, 1},
      {"optimizer.weight_decay", [](C& c, size_t) -> T { return &c.optimizer.weight_decay; },
       "each step shrinks matrices by this factor times the learning rate; more keeps weights smaller", 0, 10},
      {"optimizer.clip", [](C& c, size_t) -> T { return &c.optimizer.clip; },
       "gradients with a larger norm are scaled down to it; 0: no clipping", 0, 1e6},
      {"schedule.kind",
       [](C& c, size_t) -> T { return &c.schedule.kind; },
       "learning rate after the warm-up: cosine to the floor, or stable: the peak, then a linear decrease",
       0,
       0,
       {"cosine", "stable"}},
      {"schedule.peak", [](C& c, size_t) -> T { return &c.schedule.peak; },
       "highest learning rate; more learns faster and may diverge", 0, 10},
      {"schedule.floor_share", [](C& c, size_t) -> T { return &c.schedule.floor_share; },
       "last learning rate as a share of the highest", 0, 1},
      {"schedule.warmup_steps", [](C& c, size_t) -> T { return &c.schedule.warmup_steps; },
       "steps until the learning rate reaches its peak", 0, kMaxCount},
      {"schedule.decay_steps", [](C& c, size_t) -> T { return &c.schedule.decay_steps; },
       "stable: steps of the final decrease from the peak to the floor", 0, kMaxCount},
      {"steps", [](C& c, size_t) -> T { return &c.steps; },
       "steps of the whole run; more is slower and learns more", 1, kMaxCount},
      {"seed", [](C& c, size_t) -> T { return &c.seed; }, "seed of the random weights and of the order of data", 0,
       9007199254740992.0},
      {"precision",
       [](C& c, size_t) -> T { return &c.precision; },
       "precision of matrix products; weights and optimizer are f32; auto: bf16 on a GPU, f32 on a CPU",
       0,
       0,
       {"auto", "bf16", "f32"}},
      {"device",
       [](C& c, size_t) -> T { return &c.device; },
       "device that trains; auto: a GPU if libtorch has one",
       0,
       0,
       {"auto", "cpu", "cuda"},
       kMayDiffer},
      {"threads",
       [](C& c, size_t) -> T { return &c.threads; },
       "threads; 0: one per core; the number changes the rounding of results",
       0,
       4096,
       {},
       kMayDiffer},

      {"checkpoint.file",
       [](C& c, size_t) -> T { return &c.checkpoint.file; },
       "file of the run's state, from which the run continues; empty: none",
       0,
       0,
       {},
       kMayDiffer},
      {"checkpoint.interval",
       [](C& c, size_t) -> T { return &c.checkpoint.interval; },
       "steps between checkpoints; 0: only at the end",
       0,
       kMaxCount,
       {},
       kMayDiffer},
      {"evaluation.interval",
       [](C& c, size_t) -> T { return &c.evaluation.interval; },
       "steps between evaluations; 0: never",
       0,
       kMaxCount,
       {},
       kMayDiffer},
      {"evaluation.batches",
       [](C& c, size_t) -> T { return &c.evaluation.batches; },
       "held-out batches of an evaluation; more is slower and less noisy",
       1,
       kMaxCount,
       {},
       kMayDiffer},
      {"log",
       [](C& c, size_t) -> T { return &c.log; },
       "file of JSON lines with the figures of every step; empty: none",
       0,
       0,
       {},
       kMayDiffer},
      {"output.file",
       [](C& c, size_t) -> T { return &c.output.file; },
       "GGUF file to which the model is written at the end; empty: none",
       0,
       0,
       {},
       kMayDiffer},
      {"output.type",
       [](C& c, size_t) -> T { return &c.output.type; },
       "weight type of the matrices in the output file",
       0,
       0,
       {"f32", "f16", "bf16", "q8_0", "q6_k", "q4_k"},
       kMayDiffer},
  };
  return fields;
}

const std::vector<TrainList>& train_lists() {
  static const std::vector<TrainList> lists{
      {"data.sources", [](const TrainConfig& c) { return c.data.sources.size(); },
       [](TrainConfig& c, size_t size) { c.data.sources.resize(size); }, "texts to train on"},
      {"data.tasks.kinds", [](const TrainConfig& c) { return c.data.tasks.kinds.size(); },
       [](TrainConfig& c, size_t size) { c.data.tasks.kinds.resize(size); },
       "kinds of task; empty: all kinds, equally often"}};
  return lists;
}

std::vector<FieldChild> field_children(std::string_view path) {
  const std::string prefix = path.empty() ? "" : std::string(path) + ".";
  std::vector<FieldChild> children;
  for (const TrainField& field : train_fields()) {
    if (!field.path.starts_with(prefix)) continue;
    const size_t end = std::min(field.path.find_first_of(".[", prefix.size()), field.path.size());
    FieldChild child{field.path.substr(prefix.size(), end - prefix.size()), field.path.substr(0, end)};
    if (!children.empty() && children.back().path == child.path) continue;
    if (child.path == field.path) child.field = &field;
    for (const TrainList& list : train_lists()) {
      if (list.path == child.path) child.list = &list;
    }
    children.push_back(std::move(child));
  }
  return children;
}

}  // namespace fathom::train
