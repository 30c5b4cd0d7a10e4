#pragma once

#include "eval/task.h"

namespace fathom {

// Published sets, read from a local path, one a file of this folder.

}  // namespace fathom
