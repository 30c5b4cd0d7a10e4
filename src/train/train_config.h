#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"

namespace fathom::train {

/// The config of a training run. The initial values are the defaults. train_fields.cpp describes each field and its
/// range.
struct TrainConfig {
  struct Model {
    int64_t layers = 8, width = 512, heads = 8, kv_heads = 2, head_dim = 64, ffn_width = 1408;
    int64_t vocabulary = 0, context = 4096, sliding_window = 0;
    int64_t landmark_block = 0;
    bool tied_output = true;
    std::string attention = "softmax";
    double softplus_power = 3;
    double norm_eps = 1e-5, rotary_base = 10000, init_deviation = 0.02;
  };
  struct Source {
    std::string path;
    double share = 1;
  };
  struct Lengths {
    int64_t shortest = 256, longest = 4096, cycles = 1;
    std::string order = "grow";
    bool spread = true;
  };
  struct TaskKind {
    std::string name;
    double weight = 1;
  };
  struct Tasks {
    double share = 0, answer_weight = 1, rest_weight = 0.1;
    std::vector<TaskKind> kinds;
  };
  struct Draft {
    std::string kind = "none";
    int64_t steps = 3;
    int64_t blocks = 1;
    bool sequential = true, own_output = false;
    int64_t transfer_layer = 0;
    int64_t heads = 0, kv_heads = 0, head_dim = 0, ffn_width = 0, window = 512;
    int64_t max_offset = 30000;
    double offset_share = 0.5;
    double certainty = 0.9, ordinary_share = 0.5;
    int64_t length = 4;

    bool trained() const { return kind != "none"; }
  };
  struct Compress {
    std::string kind = "none";
    int64_t slots = 128, chunk = 64, kernel = 21;
    double mixing = 0.5;
    bool raw_keys = false;
    int64_t segment = 0, factor = 0, rank = 16;
    double context_share = 0.5;
    int64_t dropped_layers = 2, projector_width = 0;
    double reconstruction_share = 0.2;
    int64_t layer = 0, window = 0;

    bool trained() const { return kind != "none"; }
  };
  struct Data {
    std::vector<Source> sources;
    std::string heldout, tokens = "tokens";
    Lengths lengths;
    Tasks tasks;
  };
  struct NewTokenizer {
    int64_t pieces = 0, sample_bytes = 20 << 20;
    double character_coverage = 0.9995;
  };
  struct Optimizer {
    std::string kind = "adamw";
    double momentum = 0.95;
    double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1, clip = 1;
  };
  struct Rates {
    std::string kind = "cosine";
    double peak = 6e-4, floor_share = 0.1;
    int64_t warmup_steps = 100, decay_steps = 0;
  };
  struct Checkpoints {
    std::string file;
    int64_t interval = 200;
  };
  struct Evaluation {
    int64_t interval = 200, batches = 8;
  };
  struct Output {
    std::string file, type = "q8_0";
  };

  std::string name = "fathom", tokenizer, start, log;
  NewTokenizer new_tokenizer;
  Model model;
  Draft draft;
  Compress compress;
  Data data;
  int64_t batch_tokens = 32768, accumulation = 1;
  Optimizer optimizer;
  Rates schedule;
  int64_t steps = 1000, seed = 0, threads = 0;
  /// Returns whether something is trained beside the model in start.
  bool has_frozen_base() const { return draft.trained() || compress.trained(); }

  std::string device = "auto", precision = "auto";
  Checkpoints checkpoint;
  Evaluation evaluation;
  Output output;
};

/// Returns the config of a JSON object; omitted fields have their defaults. name: the file, for errors. Throws
/// Error (usage) that names the path of a field ("data.sources[1].share") which is unknown (with the nearest
/// names), has the wrong type, is out of range, or contradicts another field.
TrainConfig parse_train_config(const Json& json, const std::string& name);
/// Returns the JSON of a file. Throws Error if it cannot be read, and Error (usage) with line and column if it is
/// not JSON.
Json read_json(const std::string& path);
/// Returns the config of a file. Throws Error as read_json and parse_train_config.
TrainConfig read_train_config(const std::string& path);

/// Returns every field with its value as JSON that parse_train_config accepts.
Json to_json(const TrainConfig& config);

/// Returns the JSON Schema (draft 2020-12) of configs.
Json train_config_schema();

/// Returns the fields that affect results and differ between two configs (as to_json); a run whose config differs
/// in them cannot be continued. Each is a text such as "optimizer.beta1: 0.9, now 0.8".
std::vector<std::string> differing_fields(const Json& saved, const Json& now);

}  // namespace fathom::train
