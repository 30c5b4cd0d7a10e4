#pragma once

#include <memory>

#include "base/registry.h"
#include "evict/evictor.h"

namespace fathom {

using EvictMethod = std::unique_ptr<Evictor>(const Values&);
using EvictEntry = MethodTable<EvictMethod>::Entry;

/// Returns the table of `--evict` methods. "none" makes a null evictor.
const MethodTable<EvictMethod>& evict_methods();

}  // namespace fathom
