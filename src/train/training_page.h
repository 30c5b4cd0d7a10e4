#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "train/run_log.h"

namespace fathom::train {

/// Returns a self-contained HTML page with the curves of a run. config: to_json() of the run's config; weights:
/// number of weights of the net; lines: of the run's log.
std::string training_page(const Json& config, int64_t weights, const std::vector<RunLog::Line>& lines);

}  // namespace fathom::train
