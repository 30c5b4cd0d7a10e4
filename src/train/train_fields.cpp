#include "train/train_fields.h"

#include <algorithm>

#include "attend/landmarks.h"

namespace fathom::train {
namespace {

constexpr double kMost = 1e12;  // tokens and steps: more than anyone trains
constexpr double kLongest = 1 << 30;
constexpr bool kMayDiffer = true;

}  // namespace

const std::vector<TrainField>& train_fields() {
  using C = TrainConfig;
  using T = FieldTarget;
  static const std::vector<TrainField> fields{
      {"name", [](C& c, size_t) -> T { return &c.name; }, "what the model is called", 0, 0, {}, kMayDiffer},
      {"tokenizer", [](C& c, size_t) -> T { return &c.tokenizer; },
       "GGUF file whose tokenizer cuts the texts and goes into the model"},
      {"start", [](C& c, size_t) -> T { return &c.start; },
       "GGUF file whose weights are the start; empty: random weights"},
      {"new_tokenizer.pieces", [](C& c, size_t) -> T { return &c.new_tokenizer.pieces; },
       "pieces of the tokenizer that is trained on the sources when there is no tokenizer file yet; 0: none is", 0,
       1 << 20},
      {"new_tokenizer.sample_bytes", [](C& c, size_t) -> T { return &c.new_tokenizer.sample_bytes; },
       "bytes of the sources that a new tokenizer is trained on", 1024, 1e10},
      {"new_tokenizer.character_coverage", [](C& c, size_t) -> T { return &c.new_tokenizer.character_coverage; },
       "share of all characters that get a piece of their own", 0.98, 1},

      {"model.layers", [](C& c, size_t) -> T { return &c.model.layers; }, "layers", 1, 4096},
      {"model.width", [](C& c, size_t) -> T { return &c.model.width; }, "width of the residual stream", 1, 1 << 20},
      {"model.heads", [](C& c, size_t) -> T { return &c.model.heads; }, "query heads of a layer", 1, 4096},
      {"model.kv_heads", [](C& c, size_t) -> T { return &c.model.kv_heads; },
       "key/value heads, which the query heads share evenly", 1, 4096},
      {"model.head_dim", [](C& c, size_t) -> T { return &c.model.head_dim; }, "dimensions of a head, even", 2,
       1024},
      {"model.ffn_width", [](C& c, size_t) -> T { return &c.model.ffn_width; },
       "inner width of the feed-forward part", 1, 1 << 20},
      {"model.vocabulary", [](C& c, size_t) -> T { return &c.model.vocabulary; },
       "tokens known; 0: as many as the tokenizer has", 0, 1 << 24},
      {"model.context", [](C& c, size_t) -> T { return &c.model.context; },
       "length that the model says it was trained for", 1, kLongest},
      {"model.sliding_window", [](C& c, size_t) -> T { return &c.model.sliding_window; },
       "newest tokens that each token sees; 0: all", 0, kLongest},
      {"model.attention",
       [](C& c, size_t) -> T { return &c.model.attention; },
       "how scores become shares; softplus: of unit queries and keys, which only such a model can use",
       0,
       0,
       {"softmax", "softplus"}},
      {"model.softplus_power", [](C& c, size_t) -> T { return &c.model.softplus_power; },
       "softplus: power of the re-weighting that sharpens the shares, 1 or more; 0: none", 0, 100},
      {"model.landmark_block", [](C& c, size_t) -> T { return &c.model.landmark_block; },
       "tokens between landmarks, which the tokenizer's unknown token becomes; 0: none", 0, kMaxLandmarkTokens},
      {"model.tied_output", [](C& c, size_t) -> T { return &c.model.tied_output; },
       "whether the output matrix is the embedding"},
      {"model.norm_eps", [](C& c, size_t) -> T { return &c.model.norm_eps; }, "added under the root of a norm",
       1e-12, 0.1},
      {"model.rotary_base", [](C& c, size_t) -> T { return &c.model.rotary_base; },
       "base of the rotary frequencies", 2, 1e12},
      {"model.init_deviation", [](C& c, size_t) -> T { return &c.model.init_deviation; },
       "standard deviation of random matrices", 0, 10},

      {"data.sources[].path", [](C& c, size_t i) -> T { return &c.data.sources[i].path; },
       "folder or archive of documents"},
      {"data.sources[].share", [](C& c, size_t i) -> T { return &c.data.sources[i].share; },
       "how much of the tokens, against the other sources", 0, 1e6},
      {"data.heldout",
       [](C& c, size_t) -> T { return &c.data.heldout; },
       "folder or archive of documents to evaluate on; empty: none",
       0,
       0,
       {},
       kMayDiffer},
      {"data.tokens",
       [](C& c, size_t) -> T { return &c.data.tokens; },
       "folder where the texts are kept as tokens for the next run",
       0,
       0,
       {},
       kMayDiffer},
      {"data.lengths.shortest", [](C& c, size_t) -> T { return &c.data.lengths.shortest; },
       "shortest sequences, a power of two", 2, kLongest},
      {"data.lengths.longest", [](C& c, size_t) -> T { return &c.data.lengths.longest; },
       "longest sequences, a power of two", 2, kLongest},
      {"data.lengths.order",
       [](C& c, size_t) -> T { return &c.data.lengths.order; },
       "short sequences first, or all lengths throughout",
       0,
       0,
       {"grow", "uniform"}},
      {"data.lengths.cycles", [](C& c, size_t) -> T { return &c.data.lengths.cycles; },
       "how often lengths grow in the course of the run", 1, kMost},
      {"data.lengths.spread", [](C& c, size_t) -> T { return &c.data.lengths.spread; },
       "whether long documents are cut so that all lengths get as many tokens"},
      {"data.tasks.share", [](C& c, size_t) -> T { return &c.data.tasks.share; },
       "share of the tokens that are tasks on long contexts", 0, 1},
      {"data.tasks.answer_weight", [](C& c, size_t) -> T { return &c.data.tasks.answer_weight; },
       "weight in the loss of a task's answers; a token of a text has 1", 0, 1000},
      {"data.tasks.rest_weight", [](C& c, size_t) -> T { return &c.data.tasks.rest_weight; },
       "weight in the loss of what else a task says", 0, 1000},
      {"data.tasks.kinds[].name", [](C& c, size_t i) -> T { return &c.data.tasks.kinds[i].name; }, "kind of task"},
      {"data.tasks.kinds[].weight", [](C& c, size_t i) -> T { return &c.data.tasks.kinds[i].weight; },
       "how many of them, against the other kinds", 1e-6, 1e6},

      {"batch_tokens", [](C& c, size_t) -> T { return &c.batch_tokens; }, "tokens of a step", 1, kMost},
      {"accumulation", [](C& c, size_t) -> T { return &c.accumulation; },
       "parts that a batch's sequences are computed in, to save memory", 1, kMost},
      {"optimizer.kind",
       [](C& c, size_t) -> T { return &c.optimizer.kind; },
       "what moves the matrices of layers: AdamW, or Muon's orthogonalised momentum; all else AdamW",
       0,
       0,
       {"adamw", "muon"}},
      {"optimizer.momentum", [](C& c, size_t) -> T { return &c.optimizer.momentum; },
       "Muon: how slowly the mean of gradients moves", 0, 0.9999},
      {"optimizer.beta1", [](C& c, size_t) -> T { return &c.optimizer.beta1; },
       "AdamW: how slowly the mean of gradients moves", 0, 0.9999},
      {"optimizer.beta2", [](C& c, size_t) -> T { return &c.optimizer.beta2; },
       "AdamW: how slowly the mean of squared gradients moves", 0, 0.999999},
      {"optimizer.eps", [](C& c, size_t) -> T { return &c.optimizer.eps; },
       "AdamW: added to the root of the mean of squares", 1e-16, 1},
      {"optimizer.weight_decay", [](C& c, size_t) -> T { return &c.optimizer.weight_decay; },
       "share of the rate by which matrices shrink each step", 0, 10},
      {"optimizer.clip", [](C& c, size_t) -> T { return &c.optimizer.clip; },
       "largest norm of all gradients together; 0: any", 0, 1e6},
      {"schedule.kind",
       [](C& c, size_t) -> T { return &c.schedule.kind; },
       "after the warm-up: a cosine down to the floor, or the peak and a line down",
       0,
       0,
       {"cosine", "stable"}},
      {"schedule.peak", [](C& c, size_t) -> T { return &c.schedule.peak; }, "highest learning rate", 0, 10},
      {"schedule.floor_share", [](C& c, size_t) -> T { return &c.schedule.floor_share; },
       "last learning rate as a share of the highest", 0, 1},
      {"schedule.warmup_steps", [](C& c, size_t) -> T { return &c.schedule.warmup_steps; }, "steps until the peak",
       0, kMost},
      {"schedule.decay_steps", [](C& c, size_t) -> T { return &c.schedule.decay_steps; },
       "steps from the peak down to the floor, of kind stable", 0, kMost},
      {"steps", [](C& c, size_t) -> T { return &c.steps; }, "steps of the whole run", 1, kMost},
      {"seed", [](C& c, size_t) -> T { return &c.seed; }, "of random weights and the order of data", 0,
       9007199254740992.0},
      {"precision",
       [](C& c, size_t) -> T { return &c.precision; },
       "what matrices are multiplied in; weights and optimizer are f32 always; auto: bf16 on a GPU, f32 on a CPU",
       0,
       0,
       {"auto", "bf16", "f32"}},
      {"device",
       [](C& c, size_t) -> T { return &c.device; },
       "where the net is; auto: on a GPU if libtorch has one",
       0,
       0,
       {"auto", "cpu", "cuda"},
       kMayDiffer},
      {"threads",
       [](C& c, size_t) -> T { return &c.threads; },
       "threads; 0: as many as the machine has cores. Other numbers round differently",
       0,
       4096,
       {},
       kMayDiffer},

      {"checkpoint.file",
       [](C& c, size_t) -> T { return &c.checkpoint.file; },
       "where the run's state is kept and found again; empty: nowhere",
       0,
       0,
       {},
       kMayDiffer},
      {"checkpoint.interval",
       [](C& c, size_t) -> T { return &c.checkpoint.interval; },
       "steps between checkpoints; 0: at the end only",
       0,
       kMost,
       {},
       kMayDiffer},
      {"evaluation.interval",
       [](C& c, size_t) -> T { return &c.evaluation.interval; },
       "steps between evaluations; 0: never",
       0,
       kMost,
       {},
       kMayDiffer},
      {"evaluation.batches",
       [](C& c, size_t) -> T { return &c.evaluation.batches; },
       "held-out batches of an evaluation",
       1,
       kMost,
       {},
       kMayDiffer},
      {"log",
       [](C& c, size_t) -> T { return &c.log; },
       "file of JSON lines that says how the run went, step by step; empty: none",
       0,
       0,
       {},
       kMayDiffer},
      {"output.file",
       [](C& c, size_t) -> T { return &c.output.file; },
       "GGUF file that the model is written to at the end; empty: none",
       0,
       0,
       {},
       kMayDiffer},
      {"output.type",
       [](C& c, size_t) -> T { return &c.output.type; },
       "what the matrices in it are rounded to",
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
       [](TrainConfig& c, size_t size) { c.data.sources.resize(size); }, "what to learn from"},
      {"data.tasks.kinds", [](const TrainConfig& c) { return c.data.tasks.kinds.size(); },
       [](TrainConfig& c, size_t size) { c.data.tasks.kinds.resize(size); },
       "which tasks; none named: all, as many of each"}};
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
