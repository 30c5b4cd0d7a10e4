#pragma once

#include "eval/task.h"

namespace fathom {

// Tasks that make their own text, one family a file of this folder.

}  // namespace fathom
