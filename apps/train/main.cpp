// fathom-train: the program that `fathom train` starts. It trains a tokenizer and a model and writes a GGUF file.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "base/format.h"
#include "base/progress.h"
#include "base/stopwatch.h"
#include "base/write_file.h"
#include "cartridge.h"
#include "console.h"
#include "optimise_states.h"
#include "program.h"
#include "train/checkpoint.h"
#include "train/compress_kinds.h"
#include "train/draft_kinds.h"
#include "train/export_gguf.h"
#include "train/run_log.h"
#include "train/training_data.h"
#include "train/training_page.h"

namespace fathom::train {
namespace {

constexpr const char* kExamples =
    R"(A config is a JSON object; `fathom train --schema` lists its fields with their defaults and ranges. The run writes
its state to checkpoint.file at intervals and when it is interrupted. The same command then continues from there and
gives the same bits as a run without interruptions.

Examples:
  fathom train run.json --html curves.html                   start, or continue from the last checkpoint
  fathom train run.json --set steps=2000 --set seed=7        change fields of the config
  fathom train run.json --check                              check config, data and checkpoint
  fathom train run.json --until 500                          train to step 500, write the model; continue later
  fathom train run.json --export model.gguf --type q4_k      write the model of the last checkpoint
  fathom train --optimise-states 0.03 -m model.gguf -f book.txt --window 64
                                                             read a text with optimised states; train nothing
  fathom train --cartridge book.cartridge.gguf -m model.gguf -f book.txt --slots 128
                                                             train slots that stand for a text
)";

struct TrainOptions {
  std::string config, export_file, export_type, json, html;
  std::vector<std::string> set;
  int64_t show = 0, until = 0;
  bool schema = false, check = false, plain = false;
};

/// Sets a field of the config, such as "optimizer.clip=0.5". A value that is not JSON is a string.
void set_field(Json& json, const std::string& setting) {
  const size_t equals = setting.find('=');
  if (equals == std::string::npos || equals == 0) {
    fail_usage("--set: expected FIELD=VALUE, such as optimizer.clip=0.5, found ", quote(setting));
  }
  Json* at = &json;
  const std::string path = setting.substr(0, equals), value = setting.substr(equals + 1);
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    if (!at->is_object() && !at->is_null())
      fail_usage("--set: ", quote(path), " is not a field: a part of its path is a value, not an object");
    at = &(*at)[path.substr(begin, end - begin)];
    begin = end + 1;
  }
  const Json parsed = Json::parse_or_null(value);
  *at = parsed.is_null() ? Json(value) : parsed;
}

TrainConfig config_of(const TrainOptions& options) {
  Json json = read_json(options.config);
  for (const std::string& setting : options.set) set_field(json, setting);
  TrainConfig config = parse_train_config(json, options.config);
  if (config.has_frozen_base() && config.tokenizer.empty()) config.tokenizer = config.start;
  return config;
}

WeightType weight_type(const std::string& name) { return find_weight_type(name)->type; }

void write_model(const Trainable& net, const TrainingData& data, const std::string& path, const std::string& type) {
  to_gguf(net, weight_type(type), &data.tokenizer_file()).write(path);
  note(concat("wrote ", path, ", ", format_bytes(static_cast<double>(std::filesystem::file_size(path)))));
}

/// Shows the state of a run on stderr: on a terminal one line that is updated, otherwise a line at each evaluation.
class Display {
 public:
  explicit Display(int64_t steps) : steps_(steps), progress_("training", "steps", steps) {}

  void show(const Json& line) {
    if (line.contains("loss")) {
      const double loss = line["loss"].get<double>(), rate = line["tokens_per_second"].get<double>();
      loss_ = done_ == 0 ? loss : 0.95 * loss_ + 0.05 * loss;
      rate_ = done_ == 0 ? rate : 0.95 * rate_ + 0.05 * rate;
      ++done_;
      progress_.set_note(concat("loss ", rounded(loss_), heldout_, "  ", format_size(rate_), " tokens/s"));
      progress_.update(line["step"].get<int64_t>());
    } else if (line.contains("heldout")) {
      heldout_.clear();
      const Json* agreement = line.find("agreement");
      for (const auto& [name, loss] : line["heldout"].fields()) {
        heldout_ += concat("  ", name, " ", rounded(loss.get<double>()));
        if (agreement) heldout_ += shares_text(agreement->find(name));
      }
      if (!stderr_is_terminal()) print_line(line["step"].get<int64_t>());
    }
  }

 private:
  static std::string rounded(double x) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.3f", x);
    return text;
  }
  /// Returns the agreement of a draft's steps with its base, such as " (0.71 0.52)".
  static std::string shares_text(const Json* shares) {
    std::string text;
    for (size_t i = 0; shares && i < shares->size(); ++i) {
      char share[16];
      std::snprintf(share, sizeof(share), "%.2f", (*shares)[i].get<double>());
      text += concat(text.empty() ? " (" : " ", share);
    }
    return text.empty() ? text : text + ")";
  }
  void print_line(int64_t step) const {
    const double left =
        done_ > 0 ? watch_.seconds() / static_cast<double>(done_) * static_cast<double>(steps_ - step) : 0;
    note(concat("step ", step, " of ", steps_, "  loss ", rounded(loss_), heldout_, "  ", format_size(rate_),
                " tokens/s  ", format_seconds(left), " left"));
  }

  int64_t steps_, done_ = 0;
  Progress progress_;
  Stopwatch watch_;
  double loss_ = 0, rate_ = 0;
  std::string heldout_;
};

/// Prints the rows of a step as text. If the weights of a row differ, the tokens with the largest weight, which are
/// the answers of a task, are in «».
void show_step(TrainingData& data, int64_t step) {
  const Batch batch = data.batches().batch(step - 1);
  for (int64_t s = 0; s < batch.sequences; ++s) {
    const std::span ids(batch.tokens.data() + s * (batch.length + 1), batch.length + 1);
    const std::span weights(batch.weights.data() + s * batch.length, batch.length);
    const float max_weight = std::ranges::max(weights);
    const bool marked =
        std::ranges::any_of(weights, [&](float weight) { return weight > 0 && weight < max_weight; });
    StreamDecoder decoder(data.tokenizer());
    std::string text;
    bool inside = false;
    for (int64_t i = 0; i < batch.length && weights[i] > 0; ++i) {
      const std::string piece = decoder.add(ids[i + 1]);
      if (const bool answer = marked && weights[i] == max_weight; answer != inside) {
        text += answer ? "«" : "»";
        inside = answer;
      }
      text += piece;
    }
    write_out(concat("--- row ", s + 1, " of ", batch.sequences, ", ", batch.length, " tokens\n", text, "\n"));
  }
}

Factors factors_of(const TrainConfig& config) {
  if (config.precision != "bf16") return Factors::kF32;
  if (has_products_of(Factors::kBF16)) return Factors::kBF16;
  note("precision is bf16, but this processor has no bfloat16 instructions: matrix products are computed in f32");
  return Factors::kF32;
}

/// Returns what is trained beside the model in start.
std::unique_ptr<Trainable> make_side_net(const TrainConfig& config, const TrainingData& data, const LayerOps& ops,
                                         at::Device device) {
  const Gguf start = Gguf::open(config.start);
  NetConfig shape = frozen_base_config(config, start);
  if (data.tokenizer().size() != shape.model.vocabulary) {
    fail_usage("the tokenizer has ", data.tokenizer().size(), " tokens, but the model in start has ",
               shape.model.vocabulary);
  }
  auto base = std::make_unique<Net>(std::move(shape), ops, device);
  import_gguf(start, *base);
  FrozenBase frozen{.name = config.name,
                    .net = std::move(base),
                    .placeholder = data.unknown_token(),
                    .end = data.tokenizer().vocabulary().eos,
                    .seed = static_cast<uint64_t>(config.seed)};
  return config.draft.trained() ? make_draft(config.draft, std::move(frozen))
                                : make_compression(config.compress, std::move(frozen));
}

std::unique_ptr<Trainable> make_net(const TrainConfig& config, const TrainingData& data, bool plain) {
  const at::Device device = training_device(config);
  const LayerOps& ops = plain ? plain_ops() : device.is_cpu() ? fused_ops(factors_of(config)) : device_ops();
  if (config.has_frozen_base()) return make_side_net(config, data, ops, device);
  NetConfig shape = net_config(config, data.tokenizer().size());
  if (shape.model.landmarks) shape.model.landmark_token = data.unknown_token();
  auto net = std::make_unique<Net>(std::move(shape), ops, device);
  if (config.start.empty()) {
    net->initialise(static_cast<uint64_t>(config.seed), config.model.init_deviation);
  } else {
    import_gguf(Gguf::open(config.start), *net);
  }
  return net;
}

void train(const TrainOptions& options, const TrainConfig& config) {
  if (stderr_is_terminal() && config.new_tokenizer.pieces > 0 && !std::filesystem::exists(config.tokenizer))
    note(concat("first training a tokenizer of ", config.new_tokenizer.pieces, " pieces: ", config.tokenizer));
  TrainingData data(config);
  if (options.show > 0) return show_step(data, options.show);
  const std::unique_ptr<Trainable> net = make_net(config, data, options.plain);
  std::unique_ptr<RunLog> log;
  std::unique_ptr<Display> display;
  const Stopwatch watch;
  double earlier_seconds = 0;
  const auto write_page = [&] {
    if (options.html.empty()) return;
    const std::string page = training_page(to_json(config), net->values().numel(), log->lines());
    write_file(options.html, std::as_bytes(std::span(page)));
  };
  Trainer trainer(config, *net, data.batches(), data.heldout(), [&](Json line) {
    line["seconds"] = earlier_seconds + watch.seconds();
    display->show(line);
    if (options.json == "-") write_out(line.dump() + "\n");
    const bool step = line.contains("loss");
    log->add(std::move(line));
    if (!step) write_page();
  });
  const bool resumed = trainer.resume();
  if (!options.export_file.empty()) {
    if (!resumed) fail("--export: checkpoint ", quote(config.checkpoint.file), " does not exist; train first");
    const std::string& type = options.export_type.empty() ? config.output.type : options.export_type;
    return write_model(*net, data, options.export_file, type);
  }
  if (!options.check) log = std::make_unique<RunLog>(config.log, trainer.steps_done());
  note(concat(format_size(static_cast<double>(net->values().numel())), " weights, ",
              format_size(static_cast<double>(data.tokens())), " tokens of text, ", config.steps, " steps of ",
              format_size(static_cast<double>(config.batch_tokens)), " tokens"));
  if (resumed) note(concat("continuing from ", config.checkpoint.file, ", step ", trainer.steps_done()));
  if (options.check) return note("config and data are valid");
  earlier_seconds = log->seconds();
  const int64_t until = options.until > 0 ? std::min(options.until, config.steps) : config.steps;
  display = std::make_unique<Display>(until);
  trainer.run(until);
  write_page();
  display.reset();
  if (!config.output.file.empty()) write_model(*net, data, config.output.file, config.output.type);
}

/// The options of all uses of the program.
struct Options {
  TrainOptions run;
  TextOptions text;
  OptimiseStatesOptions states;
  CartridgeOptions cartridge;

  bool makes_cartridge() const { return !cartridge.out.empty(); }
  /// Returns the option that selects another use than a run with a config; empty: none.
  std::string use() const { return states.run ? "--optimise-states" : makes_cartridge() ? "--cartridge" : ""; }
};

/// Throws Error (usage) if options are given that belong to another use of the program.
void check_use(const Options& options) {
  const auto require = [](bool used, const std::vector<std::string>& given, const char* needed) {
    if (!used && !given.empty()) fail_usage(given.front(), " needs ", needed);
  };
  require(options.states.run, options.states.given, "--optimise-states RATE");
  require(options.makes_cartridge(), options.cartridge.given, "--cartridge FILE");
  require(!options.use().empty(), options.text.given, "--optimise-states RATE or --cartridge FILE");
  if (options.use().empty()) return;
  const TrainOptions& run = options.run;
  const std::pair<const char*, bool> others[] = {{"a config", !run.config.empty()},
                                                 {"--set", !run.set.empty()},
                                                 {"--until", run.until > 0},
                                                 {"--check", run.check},
                                                 {"--export", !run.export_file.empty()},
                                                 {"--type", !run.export_type.empty()},
                                                 {"--html", !run.html.empty()},
                                                 {"--show", run.show > 0},
                                                 {"--cartridge", options.states.run && options.makes_cartridge()}};
  for (const auto& [name, given] : others) {
    if (given) fail_usage(options.use(), " trains no model; it cannot be combined with ", name);
  }
}

void add_options(Command program) {
  static Options all;
  TrainOptions& options = all.run;
  program.name("fathom train");
  program.footer(kExamples);
  program.add_option("config", options.config, "config of the run, a JSON file").type_name("CONFIG");
  program.add_option("--set", options.set, "set a field of the config, such as steps=2000; repeatable")
      .type_name("FIELD=VALUE");
  program
      .add_option("--until", options.until,
                  "end after this step and write the model; the learning rate still follows the config's steps")
      .positive()
      .type_name("STEP");
  program.add_flag("--check", options.check, "check config, data and checkpoint; train nothing");
  program
      .add_option("--export", options.export_file,
                  "write the model of the checkpoint to this GGUF file; train nothing")
      .type_name("FILE");
  program
      .add_option("--type", options.export_type,
                  "with --export: weight type of the matrices [output.type of the config]")
      .one_of({"f32", "f16", "bf16", "q8_0", "q6_k", "q4_k"})
      .type_name("TYPE");
  program
      .add_option("--json", options.json,
                  "-: also write the lines of the log to stdout; with --optimise-states or --cartridge: print a "
                  "JSON object")
      .one_of({"-"})
      .type_name("-");
  program
      .add_option("--html", options.html,
                  "write an HTML page with the run's curves to this file, and update it at each evaluation")
      .type_name("FILE");
  program.add_option("--show", options.show, "print the texts of this step, answers in «»; train nothing")
      .positive()
      .type_name("STEP");
  program.add_flag("--plain", options.plain, "compute with libtorch's operations only; slower, for comparison");
  program.add_flag("--schema", options.schema, "print the JSON schema of configs");
  add_text_options(program, all.text);
  add_optimise_states_options(program, all.states);
  add_cartridge_options(program, all.cartridge);
  program.callback([] {
    const TrainOptions& run = all.run;
    if (run.schema) return write_out(train_config_schema().dump(2) + "\n");
    check_use(all);
    const TextReport report{.plain = run.plain, .json = run.json == "-"};
    if (all.states.run) return optimise_states(all.states, all.text, report);
    if (all.makes_cartridge()) return train_cartridge_of_text(all.cartridge, all.text, report);
    if (run.config.empty()) fail_usage("no config given; expected a JSON file (see fathom train --help)");
    train(run, config_of(run));
  });
}

}  // namespace
}  // namespace fathom::train

int main(int argc, char** argv) {
  return fathom::run_program(argc, argv, "Train a model and its tokenizer on texts and tasks.",
                             fathom::train::add_options);
}
