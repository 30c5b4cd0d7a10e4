// fathom train --optimise-states: measures how much optimised states of earlier tokens help to predict a text.
#include "optimise_states.h"

#include <charconv>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/spec.h"
#include "console.h"
#include "tokens/prompt.h"
#include "train/export_gguf.h"

namespace fathom::train {
namespace {

double read_rate(const std::string& text) {
  double rate = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rate);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(rate) || rate < 0) {
    fail_usage("--optimise-states: expected a learning rate of 0 or more, such as 0.03, found ", quote(text));
  }
  return rate;
}

/// Losses of the same windows without and with optimised states.
struct Comparison {
  std::vector<WindowLoss> without, with;
};

std::vector<int32_t> read_tokens(const Gguf& model, const std::string& file) {
  const Tokenizer tokenizer(Vocabulary::read(model));
  const std::vector<int32_t> text = tokenizer.encode(read_input(file), {.add_bos_eos = false});
  std::vector<int32_t> tokens = bos_tokens(tokenizer);
  tokens.insert(tokens.end(), text.begin(), text.end());
  if (tokens.size() < 2) fail(input_name(file), ": nothing to score: the text needs a token after the first");
  return tokens;
}

Comparison compare(Net& net, const std::vector<int32_t>& tokens, const StateStepOptions& options) {
  const auto predicted = static_cast<int64_t>(tokens.size()) - 1;
  Progress progress("reading", "tokens", 2 * predicted);
  const auto read = [&](int64_t steps, int64_t before) {
    StateStepOptions used = options;
    used.steps = steps;
    return window_losses(net, tokens, used, [&](int64_t done) {
      progress.update(before + done);
      throw_if_interrupted();
    });
  };
  return {read(0, 0), read(options.steps, predicted)};
}

double nll(const WindowLoss& window) { return mean_loss({&window, 1}); }

void print_json(const Comparison& losses, const StateStepOptions& options, int64_t tokens) {
  Json windows = Json::array();
  for (size_t i = 0; i < losses.with.size(); ++i) {
    windows.push_back({{"tokens", losses.with[i].tokens},
                       {"nll_without", nll(losses.without[i])},
                       {"nll_with", nll(losses.with[i])}});
  }
  const Json line = {{"tokens", tokens},
                     {"window", options.window},
                     {"rate", options.rate},
                     {"steps", options.steps},
                     {"memory", options.memory},
                     {"nll_without", mean_loss(losses.without)},
                     {"nll_with", mean_loss(losses.with)},
                     {"windows", windows}};
  write_out(line.dump() + "\n");
}

std::string table_row(const std::string& name, int64_t tokens, double without, double with) {
  char line[120];
  std::snprintf(line, sizeof line, "%8s %10lld %10.4f %10.4f\n", name.c_str(), static_cast<long long>(tokens),
                without, with);
  return line;
}

void print_table(const Comparison& losses, int64_t tokens) {
  char line[120];
  std::snprintf(line, sizeof line, "%8s %10s %10s %10s\n", "window", "tokens", "without", "with");
  std::string text = line;
  for (size_t i = 0; i < losses.with.size(); ++i) {
    text += table_row(concat(i + 1), losses.with[i].tokens, nll(losses.without[i]), nll(losses.with[i]));
  }
  write_out(text + table_row("mean", tokens, mean_loss(losses.without), mean_loss(losses.with)));
}

}  // namespace

void add_optimise_states_options(Command program, OptimiseStatesOptions& options) {
  OptimiseStatesOptions& o = options;
  program
      .add_option(
          "--optimise-states",
          [&o](const std::string& text) {
            o.run = true;
            o.states.rate = read_rate(text);
          },
          "without CONFIG: read a text window by window, after each window make a gradient step with this learning "
          "rate on the cached keys and values, and print the losses with and without; 0.03 is a good start")
      .type_name("RATE");
  const auto add_size = [&](const std::string& name, int64_t& value, int64_t min, const std::string& help) {
    const auto set = [&o, &value, name, min](const std::string& text) {
      const auto size = parse_size(text);
      if (!size || *size < min) {
        fail_usage(name, ": expected a number of at least ", min, ", such as 512 or 4k, found ", quote(text));
      }
      o.given.push_back(name);
      value = *size;
    };
    program.add_option(name, set, "with --optimise-states: " + help).type_name("SIZE");
  };
  add_size("--window", o.states.window, 1,
           "tokens per window; shorter windows make more steps and take more time [256]");
  add_size("--state-steps", o.states.steps, 1, "gradient steps after each window; more take more time [1]");
  add_size("--memory", o.states.memory, 0,
           "earlier tokens whose states are kept; more take more time and memory [0: all]");
}

void optimise_states(const OptimiseStatesOptions& options, const TextOptions& text, const TextReport& report) {
  text.check("--optimise-states");
  const Gguf file = Gguf::open(text.model);
  const std::vector<int32_t> tokens = read_tokens(file, text.file);
  Net net(read_net_config(file), report.plain ? plain_ops() : fused_ops());
  import_gguf(file, net);
  const Comparison losses = compare(net, tokens, options.states);
  const auto predicted = static_cast<int64_t>(tokens.size()) - 1;
  if (report.json) {
    print_json(losses, options.states, predicted);
  } else {
    print_table(losses, predicted);
  }
}

}  // namespace fathom::train
