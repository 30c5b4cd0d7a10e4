#pragma once

#include <memory>

#include "base/registry.h"
#include "decode/sample_step.h"

namespace fathom {

using SampleMethod = std::unique_ptr<SampleStep>(const Values&);
using SampleEntry = MethodTable<SampleMethod>::Entry;

/// Returns the `--sample` methods.
const MethodTable<SampleMethod>& sample_methods();

}  // namespace fathom
