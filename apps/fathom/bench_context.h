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
  std::vector<std::string> tests;      // "open", "edit", "large", "edit-quality", "join-quality"
  std::vector<std::string> documents;  // of the tests of quality: files and folders
  int64_t samples = 50;                // of the tests of quality: documents that are used, at most
  std::vector<int64_t> depths;         // tokens of the context, or of each document; empty: the default
  int64_t runs = 3;                    // of each figure but reading, which is done once
  size_t memory = 0;                   // limit of "large" in bytes; 0: none
  bool json = false;
};

/// Adds --test, --documents and --samples.
void add_context_bench_options(Command command, ContextBenchOptions& options);

/// Runs the tests. open and edit measure and print how soon the first token after a long context comes: with the
/// context read, restored from a disk cache, and opened from a context file; and how long an edit in the middle
/// takes. large measures how fast tokens are decoded after a context that
/// is larger than the memory for it (bench_large_context). They write to a temporary folder ($TMPDIR), which is
/// removed. The tests of quality are those of bench_quality.h.
void bench_contexts(const ContextBenchOptions& options, const SessionOptions& session,
                    const std::shared_ptr<const Model>& model, const std::shared_ptr<Runtime>& runtime);

}  // namespace fathom
