#pragma once

#include <memory>

#include "base/registry.h"
#include "context/reader.h"

namespace fathom {

using ReadMethod = std::unique_ptr<Reader>(const Values&);
using ReadEntry = MethodTable<ReadMethod>::Entry;

/// Returns the table of `--read` methods. "whole" makes a null reader.
const MethodTable<ReadMethod>& read_methods();

}  // namespace fathom
