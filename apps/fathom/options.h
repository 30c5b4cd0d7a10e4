#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "base/interrupt.h"
#include "base/method_specs.h"
#include "command_line.h"
#include "decode/sampler.h"
#include "session/session.h"

namespace fathom {

/// What every command that runs a model takes.
struct CommonOptions {
  std::string model;    // path; empty: the default
  int64_t threads = 0;  // 0: all cores
  int64_t context = 0;
  int64_t chunk = 512;
  int64_t memory = 0;                                                       // bytes; 0: no limit
  int64_t checkpoints = static_cast<int64_t>(EngineOptions().checkpoints);  // bytes
  MethodSpecs methods;

  SessionOptions session() const {
    SessionOptions options = SessionOptions::of(methods);
    options.context = context;
    options.chunk = chunk;
    options.stop = &interrupt_token();
    return options;
  }
  EngineOptions engine() const { return {static_cast<size_t>(memory), static_cast<size_t>(checkpoints)}; }
  /// The model's file. Throws Error saying what to do if there is none.
  std::string model_path() const;
};

/// How the next token is chosen.
struct SamplingOptions {
  std::vector<std::string> steps;                            // specs
  std::string temperature, top_k, top_p, min_p, repetition;  // numbers; empty: not asked for
  std::optional<uint64_t> seed;

  /// Draws a seed, and says which on stderr, if one is needed and none is given. Throws Error (usage).
  Sampler sampler() const;
};

/// Which methods a command lets users choose.
enum class MethodChoice {
  kSession,  // all but --read: texts must fit the model's window
  kAll,
};
/// The defaults are what `options` holds.
void add_common_options(Command command, CommonOptions& options, MethodChoice choice = MethodChoice::kSession);
/// One option for each kind of method: --attend, ... The defaults are what `methods` holds.
void add_method_options(Command command, MethodSpecs& methods, MethodChoice choice = MethodChoice::kSession);

/// Specs of each kind of method, in the order of kMethodOptions.
using MethodLists = std::array<std::vector<std::string>, kMethodOptions.size()>;
/// The same options, each of which may be given several times.
void add_method_lists(Command command, MethodLists& lists);

void add_sampling_options(Command command, SamplingOptions& options);
Option add_model_option(Command command, std::string& model);
/// An option that takes a size such as 512 or 4k, at least `min`.
Option add_size_option(Command command, const std::string& names, int64_t& size, int64_t min,
                       const std::string& help, int64_t max = std::numeric_limits<int64_t>::max());

/// The file given, or $FATHOM_MODEL, or the default model beside the program. Throws Error if there is none.
std::string find_model(const std::string& given);

}  // namespace fathom
