#pragma once

#include <memory>

#include "attend/selector.h"
#include "base/registry.h"

namespace fathom {

using SelectorMethod = std::unique_ptr<Selector>(const Values&);
using SelectorEntry = MethodTable<SelectorMethod>::Entry;

/// Returns the table of the `--attend` methods.
const MethodTable<SelectorMethod>& attend_methods();

}  // namespace fathom
