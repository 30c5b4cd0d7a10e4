#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "attend/landmarks.h"
#include "base/thread_pool.h"
#include "memory/page_store.h"

namespace fathom {

/// Computes ‖W_o v‖₁ for values v of a layer, with the layer's output projection W_o, on all threads. values:
/// [kv_heads, rows, value_dim]; norms: [kv_heads, rows], the mean over the query heads that share a value.
using OutputNorms =
    std::function<void(int layer, int64_t rows, const float* values, float* norms, ThreadPool& pool)>;

/// The attention shape of one layer of a model.
struct AttendLayer {
  int heads = 0;     // query heads; 0: the layer has no attention
  int kv_heads = 0;  // key/value heads
  PageShape shape{};
};

/// The properties of a model that selectors and evictors use.
struct AttendContext {
  /// Returns the context of a model whose layers all have the same shape.
  static AttendContext uniform(int layers, const AttendLayer& layer) {
    AttendContext context;
    context.layers = layers;
    context.attention.assign(layers, layer);
    return context;
  }

  /// Returns the number of query heads of each layer.
  std::vector<int> query_heads() const {
    std::vector<int> heads;
    for (const AttendLayer& layer : attention) heads.push_back(layer.heads);
    return heads;
  }

  int layers = 0;
  std::vector<AttendLayer> attention;  // [layers]
  OutputNorms output_norms{};          // empty: the model's layers have no output projection
  bool softplus = false;               // whether the model was trained with softplus attention instead of softmax
  Landmarks landmarks{};
};

}  // namespace fathom
