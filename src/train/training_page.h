#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/run_log.h"

namespace fathom {

/// A page for a browser, which needs nothing beside itself, with the curves of a run. config: to_json() of it;
/// weights: of the net; lines: of the run's log.
std::string training_page(const nlohmann::ordered_json& config, int64_t weights,
                          const std::vector<RunLog::Line>& lines);

}  // namespace fathom
