#include "train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <thread>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/stopwatch.h"
#include "train/checkpoint.h"
#include "train/optimizer.h"

namespace fathom::train {
namespace {

constexpr uint64_t kEvaluationSeed = 0x51ed270b;  // the same random choices in all evaluations

Schedule schedule_of(const TrainConfig& c) {
  return {.kind = c.schedule.kind == "stable" ? Schedule::Kind::kStable : Schedule::Kind::kCosine,
          .peak = c.schedule.peak,
          .floor_share = c.schedule.floor_share,
          .warmup_steps = c.schedule.warmup_steps,
          .decay_steps = c.schedule.decay_steps,
          .steps = c.steps};
}

std::span<float> span_of(const at::Tensor& flat) {
  return {flat.data_ptr<float>(), static_cast<size_t>(flat.numel())};
}

/// Values and moments in host memory: shared with a net on the CPU, otherwise copies.
struct HostState {
  HostState(const Trainable& net, Updater& updater)
      : values(net.values().cpu()), first(updater.first_moments().cpu()), second(updater.second_moments().cpu()) {}
  TrainState at(int64_t step) const { return {step, span_of(values), span_of(first), span_of(second)}; }
  at::Tensor values, first, second;
};

/// Checks the shape, tokens and weights of a batch. Returns the sum of its weights. Throws Error.
double checked_weight(const Batch& batch, int64_t vocabulary, int64_t step) {
  const auto tokens = static_cast<int64_t>(batch.tokens.size()),
             weights = static_cast<int64_t>(batch.weights.size());
  if (batch.sequences < 1 || batch.length < 1 || tokens != batch.sequences * (batch.length + 1) ||
      weights != batch.sequences * batch.length) {
    fail("batch ", step, ": ", batch.sequences, " sequences of ", batch.length, " tokens do not match ", tokens,
         " tokens and ", weights, " weights");
  }
  for (const int32_t token : batch.tokens) {
    if (token < 0 || token >= vocabulary) {
      fail("batch ", step, ": token ", token, " is outside the vocabulary of ", vocabulary);
    }
  }
  double total = 0;
  for (const float weight : batch.weights) {
    if (!(weight >= 0 && std::isfinite(weight)))
      fail("batch ", step, ": token weight ", weight, ", expected a finite number of at least 0");
    total += weight;
  }
  if (total == 0) fail("batch ", step, ": all token weights are 0");
  return total;
}

/// Splits the batch's sequences into `parts` even parts and calls visit(tokens, weights) for each: [rows, length +
/// 1] int64 and [rows, length] f32.
template <class Visit>
void visit_parts(const Batch& batch, int64_t parts, at::Device device, const Visit& visit) {
  at::Tensor tokens = at::empty({batch.sequences, batch.length + 1}, at::kLong);
  at::Tensor weights = at::empty({batch.sequences, batch.length}, at::kFloat);
  std::copy(batch.tokens.begin(), batch.tokens.end(), tokens.data_ptr<int64_t>());
  std::copy(batch.weights.begin(), batch.weights.end(), weights.data_ptr<float>());
  tokens = tokens.to(device);
  weights = weights.to(device);
  parts = std::min(parts, batch.sequences);
  for (int64_t part = 0; part < parts; ++part) {
    throw_if_interrupted();
    const int64_t begin = part * batch.sequences / parts, end = (part + 1) * batch.sequences / parts;
    visit(tokens.narrow(0, begin, end - begin), weights.narrow(0, begin, end - begin));
  }
}

at::ScalarType compute_type(const TrainConfig& config, const Trainable& net) {
  if (net.ops().floats_only) return at::kFloat;
  if (config.precision == "auto") return net.values().is_cpu() ? at::kFloat : at::kBFloat16;
  return config.precision == "bf16" ? at::kBFloat16 : at::kFloat;
}

bool due(int64_t step, int64_t interval) { return interval > 0 && step % interval == 0; }

}  // namespace

NetConfig net_config(const TrainConfig& config, int64_t vocabulary) {
  const TrainConfig::Model& from = config.model;
  if (from.vocabulary == 0 && vocabulary == 0) {
    fail_usage("model.vocabulary is 0 and there is no tokenizer; one of them must give the vocabulary size");
  }
  if (from.vocabulary != 0 && vocabulary != 0 && from.vocabulary != vocabulary) {
    fail_usage("model.vocabulary is ", from.vocabulary, ", but the tokenizer has ", vocabulary, " tokens");
  }
  NetConfig net;
  ModelConfig& c = net.model;
  c.architecture = "llama";
  c.name = config.name;
  c.layers = static_cast<int>(from.layers);
  c.width = from.width;
  c.heads = static_cast<int>(from.heads);
  c.kv_heads = static_cast<int>(from.kv_heads);
  c.key_dim = c.value_dim = c.rotary.dims = static_cast<int>(from.head_dim);
  c.ffn_width = from.ffn_width;
  c.vocabulary = std::max(from.vocabulary, vocabulary);
  c.trained_context = from.context;
  c.sliding_window = from.sliding_window;
  c.softplus = from.attention == "softplus";
  if (c.softplus) c.softplus_power = static_cast<float>(from.softplus_power);
  c.landmarks.tokens = from.landmark_block;
  c.norm_eps = static_cast<float>(from.norm_eps);
  c.rotary.base = from.rotary_base;
  net.tied_output = from.tied_output;
  return net;
}

at::Device training_device(const TrainConfig& config) {
  const bool cuda = at::hasCUDA();
  if (config.device == "cuda" && !cuda) fail_usage("device is cuda, but libtorch finds no GPU; use cpu or auto");
  return config.device == "cuda" || (config.device == "auto" && cuda) ? at::kCUDA : at::kCPU;
}

Trainer::Trainer(TrainConfig config, Trainable& net, BatchSource& batches, std::vector<HeldoutSet> heldout, Log log)
    : config_(std::move(config)),
      net_(net),
      batches_(batches),
      heldout_(std::move(heldout)),
      log_(std::move(log)),
      updater_(make_updater(config_, net)),
      schedule_(schedule_of(config_)),
      compute_type_(compute_type(config_, net)) {
  const int64_t all = std::max(1u, std::thread::hardware_concurrency());
  at::set_num_threads(static_cast<int>(config_.threads > 0 ? config_.threads : all));
}

bool Trainer::resume() {
  const std::string& path = config_.checkpoint.file;
  if (path.empty() || !std::filesystem::exists(path)) return false;
  const HostState host(net_, *updater_);
  TrainState state = host.at(0);
  read_checkpoint(path, to_json(config_), state);
  net_.values().copy_(host.values);
  updater_->first_moments().copy_(host.first);
  updater_->second_moments().copy_(host.second);
  updater_->set_steps(state.step);
  step_ = saved_step_ = state.step;
  return true;
}

void Trainer::run(int64_t until) {
  try {
    run_steps(std::min(until, config_.steps));
  } catch (const Error& error) {
    if (error.kind() != Error::Kind::kInterrupted) throw;
    save();
    const std::string& path = config_.checkpoint.file;
    throw Error(concat("interrupted after step ", step_,
                       path.empty() ? "" : "; run the same command again to continue from " + path),
                Error::Kind::kInterrupted);
  }
}

void Trainer::run_steps(int64_t until) {
  while (step_ < until) {
    const Stopwatch watch;
    const StepResult result = train_step();
    log_({{"step", step_},
          {"loss", result.loss},
          {"gradient_norm", result.norm},
          {"learning_rate", result.rate},
          {"tokens", result.tokens},
          {"tokens_per_second", static_cast<double>(result.tokens) / watch.seconds()}});
    if (due(step_, config_.checkpoint.interval)) save();
    if (!heldout_.empty() && due(step_, config_.evaluation.interval)) log_evaluation();
  }
  save();
}

void Trainer::log_evaluation() {
  Json losses = Json::object(), shares = Json::object();
  for (const HeldoutSet& set : heldout_) {
    Agreement agreement;
    losses[set.name] = evaluate(set, &agreement);
    if (!agreement.all.empty()) shares[set.name] = agreement.shares();
  }
  Json line{{"step", step_}, {"heldout", std::move(losses)}};
  if (shares.size() > 0) line["agreement"] = std::move(shares);
  log_(line);
}

Trainer::StepResult Trainer::train_step() {
  const Batch batch = batches_.batch(step_);
  const double total = checked_weight(batch, net_.vocabulary(), step_);
  net_.gradients().zero_();
  const Trainable::Loss loss_of =
      net_.step_loss({.type = compute_type_, .seed = static_cast<uint64_t>(config_.seed), .step = step_});
  StepResult result{.rate = learning_rate(schedule_, step_), .tokens = batch.sequences * batch.length};
  visit_parts(batch, config_.accumulation, net_.values().device(),
              [&](const at::Tensor& tokens, const at::Tensor& token_weights) {
                const at::Tensor loss = loss_of(tokens, token_weights) / total;
                loss.backward();
                result.loss += loss.item<double>();
              });
  result.norm = updater_->gradient_norm();
  if (!std::isfinite(result.loss) || !std::isfinite(result.norm)) {
    const std::string last_checkpoint =
        saved_step_ < 0 ? "there is no checkpoint" : concat(config_.checkpoint.file, " has step ", saved_step_);
    fail("step ", step_ + 1, ": the loss is ", result.loss, " and the gradient norm ", result.norm, "; ",
         last_checkpoint);
  }
  updater_->step(result.rate, clip_scale(result.norm, config_.optimizer.clip));
  ++step_;
  return result;
}

double Trainer::evaluate(const HeldoutSet& set, Agreement* agreement) {
  const at::NoGradGuard no_gradients;
  Agreement unused;
  const Trainable::Loss loss_of = net_.step_loss(
      {.type = compute_type_, .seed = kEvaluationSeed, .agreement = agreement ? agreement : &unused});
  double loss = 0, total = 0;
  for (int64_t i = 0; i < set.batches; ++i) {
    const Batch batch = set.source->batch(i);
    total += checked_weight(batch, net_.vocabulary(), i);
    visit_parts(batch, config_.accumulation, net_.values().device(),
                [&](const at::Tensor& tokens, const at::Tensor& token_weights) {
                  loss += loss_of(tokens, token_weights).item<double>();
                });
  }
  return loss / total;
}

void Trainer::save() {
  const std::string& path = config_.checkpoint.file;
  if (path.empty() || saved_step_ == step_) return;
  write_checkpoint(path, to_json(config_), HostState(net_, *updater_).at(step_));
  saved_step_ = step_;
  log_({{"step", step_}, {"checkpoint", path}});
}

}  // namespace fathom::train
