#pragma once

#include <cstdint>
#include <memory>

#include "attend/selector.h"

namespace fathom {

/// Selects the first `sink` tokens of the sequence and the newest `window`, the query's own included.
std::unique_ptr<Selector> make_window(int64_t sink, int64_t window);

}  // namespace fathom
