#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "session/session.h"

namespace fathom {

/// What `fathom bench --test large` measures.
struct LargeContextBench {
  std::string path;    // of the context file to write
  int64_t depth = 0;   // tokens of the context, with random keys and values
  int64_t tokens = 0;  // that are decoded
  size_t memory = 0;   // limit in bytes; 0: none
  bool json = false;
};

/// Measures and prints how fast tokens are decoded after a context in a file, without and with a limit for its
/// memory: tokens per second, memory, and how many pages were in memory when they were needed. Before each of the
/// two, the system forgets the file.
void bench_large_context(const LargeContextBench& bench, const SessionOptions& session,
                         const std::shared_ptr<const Model>& model, const std::shared_ptr<Runtime>& runtime);

}  // namespace fathom
