#include "train/draft_kinds.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "train/export_gguf.h"

namespace fathom::train {
namespace {

/// Throws Error (usage) if a field of the config is neither the default nor the base's.
template <class T>
void check_field(const char* field, const T& given, const T& standard, const T& base) {
  if (given != standard && given != base) {
    fail_usage("model.", field, " is ", given, ", but the model in start has ", base,
               "; what is trained for a model takes its shape from start");
  }
}

}  // namespace

std::span<const DraftTrainer> draft_kinds() {
  static const std::array kinds{heads_draft(), hidden_transfer_draft(), longspec_draft(), lexical_unit_draft()};
  return kinds;
}

NetConfig frozen_base_config(const TrainConfig& config, const Gguf& start) {
  NetConfig base = read_net_config(start);
  const ModelConfig& c = base.model;
  const TrainConfig::Model &given = config.model, standard;
  const auto check = [&](const char* field, int64_t TrainConfig::Model::*member, int64_t value) {
    check_field(field, given.*member, standard.*member, value);
  };
  using M = TrainConfig::Model;
  check("layers", &M::layers, c.layers);
  check("width", &M::width, c.width);
  check("heads", &M::heads, c.heads);
  check("kv_heads", &M::kv_heads, c.kv_heads);
  check("head_dim", &M::head_dim, c.key_dim);
  check("ffn_width", &M::ffn_width, c.ffn_width);
  check("vocabulary", &M::vocabulary, c.vocabulary);
  check("sliding_window", &M::sliding_window, c.sliding_window);
  check_field<std::string>("attention", given.attention, standard.attention, c.softplus ? "softplus" : "softmax");
  if (c.landmarks) {
    fail_usage("start: ", start.name(), " was trained with landmarks; nothing else can be trained for it");
  }
  return base;
}

std::unique_ptr<Trainable> make_draft(const TrainConfig::Draft& config, FrozenBase base) {
  const auto kind = std::ranges::find(draft_kinds(), config.kind, [](const DraftTrainer& k) { return k.name; });
  return kind->make(config, std::move(base));
}

}  // namespace fathom::train
