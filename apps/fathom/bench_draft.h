#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "command_line.h"
#include "session/session.h"

namespace fathom {

/// What `fathom bench --draft` measures.
struct DraftBenchOptions {
  std::vector<std::string> methods;  // specs of --draft methods, also auto, none and forced:accept=A,length=L
  std::vector<std::string> texts;    // files to continue; empty: the built-in texts
  std::string plot;                  // SVG file; empty: none
  int64_t nodes = 0;                 // as in DraftOptions

  int64_t tokens = 256;           // decoded in each run
  int64_t runs = 3;               // with drafts, of each text and method
  std::optional<double> seconds;  // limit for each text and method; none: no limit
  bool json = false;
  bool heading = true;  // print the machine and the model above the table
};

/// Adds the options of the first four members.
void add_draft_bench_options(Command command, DraftBenchOptions& options);

/// Throws Error (usage) for unknown methods and parameters.
void check_draft_methods(const DraftBenchOptions& options);

/// Measures and prints the speed of decoding without drafts and with each method, in alternating runs. Throws Error
/// (usage) for methods that do not work with the model or the session, and Error if a run gives other tokens than
/// decoding without drafts.
void bench_drafts(const DraftBenchOptions& options, const SessionOptions& session,
                  std::shared_ptr<const Model> model, std::shared_ptr<Runtime> runtime);

}  // namespace fathom
