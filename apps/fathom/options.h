#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/interrupt.h"
#include "base/method_specs.h"
#include "command_line.h"
#include "decode/drafter.h"
#include "decode/sampler.h"
#include "session/session.h"

namespace fathom {

/// An adapter of --lora.
struct AdapterFile {
  std::string path;
  float scale = 1;
};
/// Parses FILE or FILE:scale=S; the last ":scale=" counts, since file names may contain colons. Throws Error
/// (usage).
AdapterFile parse_adapter_file(const std::string& text);
/// Opens the adapters of a model. Throws Error.
std::vector<AdapterScale> open_adapters(const std::vector<AdapterFile>& files,
                                        const std::shared_ptr<const Model>& model);

/// Options of every command that runs a model.
struct CommonOptions {
  std::string model;                                                        // path; empty: the default model
  int64_t threads = 0;                                                      // 0: all cores
  int64_t context = 0;                                                      // most tokens; 0: no limit
  int64_t chunk = 512;                                                      // tokens of one forward pass
  int64_t memory = 0;                                                       // bytes; 0: no limit
  int64_t checkpoints = static_cast<int64_t>(EngineOptions().checkpoints);  // bytes
  MethodSpecs methods;
  std::vector<AdapterFile> lora;
  int64_t cache_disk = 0;  // bytes; 0: no disk cache

  /// adapters: those of `lora`, opened for the model (open_adapters).
  SessionOptions session(const std::vector<AdapterScale>& adapters) const {
    SessionOptions options = SessionOptions::of(methods);
    options.adapters = adapters;
    options.context = context;
    options.chunk = chunk;
    options.stop = &interrupt_token();
    if (cache_disk > 0) options.disk_cache = std::make_shared<DiskCache>(DiskCache::default_folder(), cache_disk);
    return options;
  }
  EngineOptions engine() const { return {static_cast<size_t>(memory), static_cast<size_t>(checkpoints)}; }
  /// Returns the path of the model file. Throws Error if no model is given and the default model is missing.
  std::string model_path() const;
};

/// Options that control how the next token is chosen.
struct SamplingOptions {
  std::vector<std::string> steps;                            // specs
  std::string temperature, top_k, top_p, min_p, repetition;  // numbers; empty: not given
  std::optional<uint64_t> seed;

  /// Returns the sampler. If it needs a seed and none is given, draws one and prints it on stderr. Throws Error
  /// (usage).
  Sampler sampler() const;
};

/// Options that control how a text is generated.
struct DecodeOptions {
  std::vector<std::string> drafts;  // specs of --draft methods; empty: auto
  int64_t draft_nodes = 0;          // most tokens of a draft; 0: chosen by measured cost
  std::string constraint;           // spec of a --constrain method; empty: none

  DraftOptions draft() const {
    return {drafts.empty() ? std::vector<std::string>{"auto"} : drafts, static_cast<int>(draft_nodes)};
  }
};

/// The method options of a command.
enum class MethodChoice {
  kSession,  // all but --read
  kAll,
};
/// What help says about limits that are not given.
struct LimitTexts {
  const char* context = "no limit";
  const char* memory = "no limit";
};
/// Adds the options of CommonOptions. The defaults are the values in `options`.
void add_common_options(Command command, CommonOptions& options, MethodChoice choice = MethodChoice::kSession,
                        const LimitTexts& limits = {});
/// Adds --cache-disk and --context-file.
void add_context_options(Command command, CommonOptions& options, std::string& context_file);
/// Adds one option for each kind of method: --attend, ... The defaults are the values in `methods`.
void add_method_options(Command command, MethodSpecs& methods, MethodChoice choice = MethodChoice::kSession);

/// For each kind of method, in the order of kMethodOptions, a list of specs.
using MethodLists = std::array<std::vector<std::string>, kMethodOptions.size()>;
/// Adds the same options as add_method_options; each may be repeated.
void add_method_lists(Command command, MethodLists& lists);

void add_sampling_options(Command command, SamplingOptions& options);
void add_decode_options(Command command, DecodeOptions& options);
/// Adds --lora.
Option add_adapter_option(Command command, std::vector<AdapterFile>& files);
Option add_model_option(Command command, std::string& model);
/// Adds an option that takes a size such as 512 or 4k, from `min` to `max`.
Option add_size_option(Command command, const std::string& names, int64_t& size, int64_t min,
                       const std::string& help, int64_t max = std::numeric_limits<int64_t>::max());

/// Adds an option that takes a number from 0 to 1. noun: what it is called in errors, "number" or "share".
Option add_share_option(Command command, const std::string& name, double& share, const std::string& noun,
                        const std::string& help);

/// Returns `given`, or $FATHOM_MODEL if that is empty, or else the path of the default model. Throws Error if the
/// default model is missing.
std::string find_model(const std::string& given);

}  // namespace fathom
