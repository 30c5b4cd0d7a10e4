#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "attend/landmarks.h"
#include "base/thread_pool.h"
#include "memory/page_store.h"

namespace fathom {

/// ‖W_o v‖₁ of values of a layer, on all threads: what of them reaches the width of the model. values: [kv_heads,
/// rows, value_dim]; norms: [kv_heads, rows], the mean over the heads that share a value.
using OutputNorms =
    std::function<void(int layer, int64_t rows, const float* values, float* norms, ThreadPool& pool)>;

/// The attention of one layer of a model.
struct AttendLayer {
  int heads = 0;     // query heads; 0: the layer has no attention
  int kv_heads = 0;  // key/value heads
  PageShape shape{};
};

/// The model that a selector or an evictor works with.
struct AttendContext {
  /// For a model whose layers are all alike.
  static AttendContext uniform(int layers, const AttendLayer& layer) {
    AttendContext context;
    context.layers = layers;
    context.attention.assign(layers, layer);
    return context;
  }

  int layers = 0;
  std::vector<AttendLayer> attention;  // [layers]
  OutputNorms output_norms{};          // empty: the model's layers have no output projection
  bool softplus = false;               // the model was trained with softplus attention, not with softmax
  Landmarks landmarks{};
};

}  // namespace fathom
