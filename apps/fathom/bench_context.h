#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "command_line.h"
#include "session/session.h"

namespace fathom {

/// What `fathom bench --test` measures.
struct ContextBenchOptions {
  std::vector<std::string> tests;  // "open", "edit", "large"
  std::vector<int64_t> depths;     // tokens of the context
  int64_t runs = 3;                // of each figure but reading, which is done once
  size_t memory = 0;               // limit of "large" in bytes; 0: none
  bool json = false;
};

/// Adds --test.
void add_context_bench_options(Command command, std::vector<std::string>& tests);

/// Measures and prints how soon the first token after a long context comes: with the context read, restored
/// from a disk cache, and opened from a context file; how long an edit in the middle takes; and how fast tokens are
/// decoded after a context that is larger than the memory for it (bench_large_context). Writes to a temporary
/// folder ($TMPDIR), which is removed.
void bench_contexts(const ContextBenchOptions& options, const SessionOptions& session,
                    const std::shared_ptr<const Model>& model, const std::shared_ptr<Runtime>& runtime);

}  // namespace fathom
