#pragma once

#include <string>

#include "base/json.h"

namespace fathom::eval {

// Both take what a run of `fathom eval` found, as its record has it: "models", "tasks", "lengths" and "methods" in
// the order of the run, the first method the one that the others are compared with; "summaries", one per model,
// task, length and method; "samples"; and "command", "created", "version", "seed", "machine", "settings". Any field
// may be missing or null.

/// A page for a browser that needs nothing beside itself. What answers hold cannot become part of the page's own
/// code; bytes that are no UTF-8 become U+FFFD. Throws nothing but for lack of memory.
std::string html_report(const Json& run);

/// A table for a terminal of `width` columns (taken as 40 if less): methods below each other for each task and
/// length, then the means over tasks. What does not fit is left out, the least important columns first.
std::string terminal_table(const Json& run, int width);

}  // namespace fathom::eval
