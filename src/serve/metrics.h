#pragma once

#include <string>

#include "serve/scheduler.h"

namespace fathom::serve {

/// Returns counters and gauges in the text format of Prometheus.
std::string metrics_text(const SchedulerStats& stats);

}  // namespace fathom::serve
