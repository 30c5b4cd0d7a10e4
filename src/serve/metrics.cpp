#include "serve/metrics.h"

#include "base/error.h"

namespace fathom::serve {

std::string metrics_text(const SchedulerStats& stats) {
  std::string text;
  const auto add = [&](const char* name, const char* type, const char* help, auto value) {
    text += concat("# HELP fathom_", name, " ", help, "\n# TYPE fathom_", name, " ", type, "\nfathom_", name, " ",
                   value, "\n");
  };
  add("requests_running", "gauge", "Requests that are being read or generated.", stats.running);
  add("requests_waiting", "gauge", "Requests that wait for a slot.", stats.waiting);
  add("requests_finished_total", "counter", "Requests that ended.", stats.finished);
  add("requests_failed_total", "counter", "Requests that failed.", stats.failed);
  add("requests_cancelled_total", "counter", "Requests whose client left.", stats.cancelled);
  add("requests_refused_total", "counter", "Requests that were refused because too many waited.", stats.refused);
  add("prompt_tokens_total", "counter", "Tokens of the prompts of ended requests.", stats.prompt_tokens);
  add("cached_tokens_total", "counter", "Tokens of these prompts that were not read again.", stats.cached_tokens);
  add("generated_tokens_total", "counter", "Tokens that were generated.", stats.generated_tokens);
  add("forward_passes_total", "counter", "Forward passes.", stats.forwards);
  add("busy_seconds_total", "counter", "Time of forward passes.", stats.busy_seconds);
  add("memory_used_bytes", "gauge", "Bytes of keys, values and states.", stats.memory_used);
  add("memory_limit_bytes", "gauge", "Limit of these bytes; 0: none.", stats.memory_limit);
  return text;
}

}  // namespace fathom::serve
