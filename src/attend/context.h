#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "attend/landmarks.h"
#include "base/thread_pool.h"
#include "memory/memory.h"

namespace fathom {

/// ‖W_o v‖₁ of values of a layer, on all threads: what of them reaches the width of the model. values: [kv_heads,
/// rows, value_dim]; norms: [kv_heads, rows], the mean over the heads that share a value.
using OutputNorms =
    std::function<void(int layer, int64_t rows, const float* values, float* norms, ThreadPool& pool)>;

/// The model and the memory that a selector will work with.
struct AttendContext {
  std::shared_ptr<const PageStore> store;
  int layers = 0;
  int heads = 0;               // query heads of a layer
  int kv_heads = 0;            // key/value heads of a layer
  OutputNorms output_norms{};  // empty: the model's layers have no output projection
  bool softplus = false;       // the model was trained with softplus attention, not with softmax
  Landmarks landmarks{};
};

}  // namespace fathom
