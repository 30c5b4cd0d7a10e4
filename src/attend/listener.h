#pragma once

#include "attend/queries.h"
#include "base/thread_pool.h"

namespace fathom {

/// Receives the queries of each layer of a forward pass, once per sequence, after Selector::plan and before any
/// selection of that layer. The keys and values of the pass have been written.
class AttendListener {
 public:
  virtual ~AttendListener() = default;
  virtual void listen(const LayerQueries& queries, ThreadPool& pool) const = 0;
};

}  // namespace fathom
