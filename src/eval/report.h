#pragma once

#include <string>

#include "base/json.h"

namespace fathom::eval {

// Both functions take the record of a `fathom eval` run: "models", "tasks", "lengths" and "methods" in the order of
// the run, where the first method is the baseline; "summaries", one per model, task, length and method; "samples";
// and "command", "created", "version", "seed", "machine", "settings". Any field may be missing or null.

/// Returns a self-contained HTML page. Texts of answers cannot become code of the page; invalid UTF-8 becomes
/// U+FFFD. Throws only if memory runs out.
std::string html_report(const Json& run);

/// Returns a table for a terminal of `width` columns (at least 40): the methods for each task and length, then the
/// means over tasks. Columns that do not fit are left out, the least important ones first.
std::string terminal_table(const Json& run, int width);

}  // namespace fathom::eval
