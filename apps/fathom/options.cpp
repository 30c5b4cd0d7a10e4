#include "options.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/format.h"
#include "console.h"
#include "decode/random.h"

namespace fathom {
namespace {

constexpr const char* kDefaultModel = "fathom-reader-q8_0.gguf";

/// Returns the folders in which the default model is searched: those of the build tree and the installation,
/// ./models.
std::vector<std::filesystem::path> model_folders() {
  std::vector<std::filesystem::path> folders;
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    folders.push_back(program.parent_path() / "../../../models");
    folders.push_back(program.parent_path() / "../share/fathom/models");
  }
  folders.emplace_back("models");
  return folders;
}

constexpr std::string_view kScale = ":scale=";  // of --lora FILE:scale=S

uint64_t parse_seed(const std::string& text) {
  uint64_t seed = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, seed);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    fail_usage("--seed: expected a whole number from 0 to 2^64 - 1, found ", quote(text));
  }
  return seed;
}

}  // namespace

std::string find_model(const std::string& given) {
  if (!given.empty()) return given;
  const char* variable = std::getenv("FATHOM_MODEL");
  if (variable && *variable) return variable;
  for (const auto& folder : model_folders()) {
    const std::filesystem::path path = (folder / kDefaultModel).lexically_normal();
    std::error_code error;
    if (std::filesystem::exists(path, error)) return path.string();
  }
  fail("no model: give a GGUF file with -m or in the environment variable FATHOM_MODEL; the default model, models/",
       kDefaultModel, ", was found neither next to the program nor in the current folder");
}

AdapterFile parse_adapter_file(const std::string& text) {
  const size_t at = text.rfind(kScale);
  AdapterFile file{text.substr(0, at)};
  if (file.path.empty()) fail_usage("--lora: expected FILE or FILE:scale=S, found ", quote(text));
  if (at == std::string::npos) return file;
  const std::string scale = text.substr(at + kScale.size());
  const char* end = scale.data() + scale.size();
  const auto parsed = std::from_chars(scale.data(), end, file.scale);
  if (parsed.ec != std::errc() || parsed.ptr != end || !std::isfinite(file.scale))
    fail_usage("--lora: expected a number after scale=, such as 0.5, found ", quote(text));
  return file;
}

std::vector<AdapterScale> open_adapters(const std::vector<AdapterFile>& files,
                                        const std::shared_ptr<const Model>& model) {
  std::vector<AdapterScale> adapters;
  for (const AdapterFile& file : files) adapters.push_back({Adapter::open(file.path, model), file.scale});
  return adapters;
}

Option add_adapter_option(Command command, std::vector<AdapterFile>& files) {
  return command
      .add_repeatable_option(
          "--lora", [&files](const std::string& text) { files.push_back(parse_adapter_file(text)); },
          "LoRA adapter (GGUF) of the model: FILE or FILE:scale=S; scale 0 has no effect, more changes the text "
          "more; repeatable: adapters add up [scale 1]")
      .type_name("FILE");
}

std::string CommonOptions::model_path() const { return find_model(model); }

Sampler SamplingOptions::sampler() const {
  std::vector<std::string> chain;
  const auto add = [&](const char* step, const std::string& value) {
    if (!value.empty()) chain.push_back(step + value);
  };
  add("repetition:penalty=", repetition);
  chain.insert(chain.end(), steps.begin(), steps.end());
  add("top-k:k=", top_k);
  add("top-p:p=", top_p);
  add("min-p:p=", min_p);
  add("temperature:t=", temperature);
  const bool drawn = !seed && !Sampler(chain).greedy();
  const uint64_t used = seed ? *seed : drawn ? draw_seed() : 0;
  if (drawn) note(concat("seed ", used));
  return Sampler(chain, used);
}

Option add_model_option(Command command, std::string& model) {
  return command.add_option("-m,--model", model, "model file (GGUF) [$FATHOM_MODEL, or fathom-reader]")
      .type_name("FILE");
}

Option add_size_option(Command command, const std::string& names, int64_t& size, int64_t min,
                       const std::string& help, int64_t max) {
  const auto read = [&size, min, max, names](const std::string& text) {
    const auto parsed = parse_size(text);
    if (!parsed || *parsed < min || *parsed > max) {
      const std::string range = max < std::numeric_limits<int64_t>::max() ? concat("from ", min, " to ", max)
                                                                          : concat("of at least ", min);
      fail_usage(names, ": expected a number ", range, ", such as 512 or 4k, found ", quote(text));
    }
    size = *parsed;
  };
  return command.add_option(names, read, help).type_name("SIZE");
}

Option add_share_option(Command command, const std::string& name, double& share, const std::string& noun,
                        const std::string& help) {
  const auto read = [&share, name, noun](const std::string& text) {
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, share);
    if (parsed.ec != std::errc() || parsed.ptr != end || !(share >= 0 && share <= 1))
      fail_usage(name, ": expected a ", noun, " from 0 to 1, found ", quote(text));
  };
  return command.add_option(name, read, help);
}

void add_common_options(Command command, CommonOptions& o, MethodChoice choice, const LimitTexts& limits) {
  add_model_option(command, o.model);
  add_size_option(command, "-t,--threads", o.threads, 1,
                  "threads; more is faster, up to the number of cores [all cores]", 1024);
  add_size_option(
      command, "-c,--context", o.context, 1,
      concat("maximum number of tokens of input and output; longer input is an error [", limits.context, "]"));
  add_size_option(
      command, "--chunk", o.chunk, 1,
      concat("tokens per forward pass while reading; more is faster and takes more memory [", o.chunk, "]"));
  add_size_option(
      command, "--memory", o.memory, 1,
      concat(
          "maximum bytes for keys, values and states, such as 8g; exceeding it is an error, but pages of a context "
          "file are read again instead [",
          limits.memory, "]"));
  add_size_option(
      command, "--checkpoints", o.checkpoints, 0,
      "maximum bytes for checkpoints of recurrent states; with more, a rewind rereads fewer tokens [256m]");
  add_method_options(command, o.methods, choice);
  add_adapter_option(command, o.lora);
}

void add_context_options(Command command, CommonOptions& o, std::string& context_file) {
  add_size_option(command, "--cache-disk", o.cache_disk, 1,
                  "keep what was read in a cache on disk of at most this many bytes, such as 10g: a later run that "
                  "begins with the same text reads only the rest; see `fathom cache` [no cache]");
  command.add_option("--context-file", context_file, "begin with a text that `fathom read` saved")
      .type_name("FILE");
}

void add_method_options(Command command, MethodSpecs& methods, MethodChoice choice) {
  for (const MethodOption& option : kMethodOptions) {
    if (option.kind == "read" && choice != MethodChoice::kAll) continue;
    std::string& spec = methods.*option.spec;
    command.add_option(concat("--", option.kind), spec, concat(option.help, " [", spec, "]")).type_name("METHOD");
  }
}

void add_method_lists(Command command, MethodLists& lists) {
  for (size_t i = 0; i < lists.size(); ++i) {
    const MethodOption& option = kMethodOptions[i];
    command.add_option(concat("--", option.kind), lists[i], concat(option.help, "; repeatable"))
        .type_name("METHOD")
        .one_value();
  }
}

void add_sampling_options(Command command, SamplingOptions& o) {
  command
      .add_option(
          "--sample", o.steps,
          "a sampling step, such as top-p:p=0.9; repeatable, applied in order; list: `fathom methods sample`")
      .type_name("METHOD")
      .one_value();
  command
      .add_option(
          "--temp", o.temperature,
          "temperature; more is more varied; 0 takes the most likely token [0; 1 with --top-k, --top-p or --min-p]")
      .type_name("T");
  command.add_option("--top-k", o.top_k, "choose among the K most likely tokens; more is more varied [all]")
      .type_name("K");
  command
      .add_option("--top-p", o.top_p,
                  "choose among the most likely tokens with total probability P; more is more varied [1]")
      .type_name("P");
  command
      .add_option("--min-p", o.min_p,
                  "choose among tokens at least P times as likely as the most likely one; more is less varied [0]")
      .type_name("P");
  command
      .add_option("--repeat-penalty", o.repetition,
                  "make the last 256 tokens less likely by the factor X; more repeats less [1]")
      .type_name("X");
  command
      .add_option(
          "--seed", [&o](const std::string& text) { o.seed = parse_seed(text); },
          "seed of sampling; the same seed gives the same text [random, printed on stderr]")
      .type_name("N");
}

void add_decode_options(Command command, DecodeOptions& o) {
  command
      .add_option(
          "--draft", o.drafts,
          "how tokens are drafted, such as suffix or model:file=small.gguf; faster, and the text is the same; "
          "repeatable; none: no drafts; list: `fathom methods draft` [auto]")
      .type_name("METHOD")
      .one_value();
  add_size_option(command, "--draft-nodes", o.draft_nodes, 0,
                  "maximum number of tokens of a draft [0: chosen by the measured cost and acceptance]",
                  DraftTree::kMaxNodes - 1);
  command
      .add_option("--constrain", o.constraint,
                  "which texts are allowed, such as strings:list=(yes|no); list: `fathom methods constrain` [any]")
      .type_name("METHOD");
}

}  // namespace fathom
