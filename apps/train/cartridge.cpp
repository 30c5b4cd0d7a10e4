// fathom train --cartridge: trains a prefix cache that stands for a text.
#include "cartridge.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <set>

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

constexpr int64_t kHeldout = 40;            // conversations on which the divergence is measured
constexpr uint64_t kHeldoutSeed = 1 << 20;  // apart from the seeds of training
constexpr int64_t kPieceTokens = 128;       // of next-token training

double read_cartridge_rate(const std::string& text) {
  double rate = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rate);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(rate) || rate < 0)
    fail_usage("--rate: expected a learning rate of 0 or more, such as 0.01, found ", quote(text));
  return rate;
}

/// A text, and the model twice: as the engine reads it and as it is trained with.
class TextCartridge {
 public:
  TextCartridge(const CartridgeOptions& options, const TextOptions& text, bool plain)
      : options_(options),
        engine_(std::make_shared<Engine>(Model::open(text.model), std::make_shared<Runtime>())),
        tokenizer_(Vocabulary::read(*engine_->model().file())),
        bos_(bos_tokens(tokenizer_)),
        text_(tokenizer_.encode(read_input(text.file), {.add_bos_eos = false})),
        base_(read_net_config(*engine_->model().file()), plain ? plain_ops() : fused_ops()) {
    import_gguf(*engine_->model().file(), base_);
    whole_ = bos_;
    whole_.insert(whole_.end(), text_.begin(), text_.end());
    if (std::ssize(whole_) < options.slots)
      fail(input_name(text.file), ": the text has ", whole_.size(), " tokens, expected at least --slots, ",
           options.slots);
    slots_ = std::make_unique<CartridgeNet>(base_, std::span(whole_).first(options.slots));
  }

  int64_t tokens() const { return std::ssize(whole_); }

  /// Generates the held-out conversations, with the whole text in view.
  void hold_out() {
    heldout_ = study(tokens()).converse(kHeldout, kHeldoutSeed + options_.training.seed);
    Session full(engine_);
    full.append(whole_);
    for (const Conversation& c : heldout_) expected_.push_back(answer_logits(*engine_, full.sequence(), c));
  }

  /// Returns the mean divergence of the answers with the slots from those with the text, in nats per token.
  double divergence() const {
    Sequence prefix = engine_->new_sequence({});
    append_cartridge(prefix, engine_->runtime(), slots_->cartridge());
    double sum = 0, answers = 0;
    for (size_t i = 0; i < heldout_.size(); ++i) {
      const std::vector<float> found = answer_logits(*engine_, prefix, heldout_[i]);
      const auto count = static_cast<double>(heldout_[i].shares.size());
      sum += count * mean_divergence(expected_[i], found, base_.vocabulary());
      answers += count;
    }
    return sum / answers;
  }

  void train() {
    const std::vector<Conversation> conversations = options_.study == "self" ? own_conversations() : pieces();
    CartridgeSteps training = options_.training;
    const int64_t passes = (std::ssize(conversations) + training.batch - 1) / training.batch;
    training.steps = options_.steps > 0 ? options_.steps : 2 * passes;
    Progress progress("training", "steps", training.steps);
    train_cartridge(*slots_, conversations, training, [&](int64_t step, double loss) {
      char text[32];
      std::snprintf(text, sizeof text, "loss %.3f", loss);
      progress.set_note(text);
      progress.update(step);
      throw_if_interrupted();
    });
  }

  void write() const { to_gguf(slots_->cartridge()).write(options_.out); }

 private:
  SelfStudy study(int64_t shortest_chunk) const {
    SelfStudyOptions study = text_study(tokenizer_);
    study.shortest_chunk = shortest_chunk;
    study.longest_chunk = std::max(study.longest_chunk, study.shortest_chunk);
    return {engine_, bos_, text_, seed_prompts(tokenizer_), std::move(study)};
  }

  /// Returns conversations about parts of the text, without those that are held out.
  std::vector<Conversation> own_conversations() const {
    std::set<std::vector<int32_t>> excluded;
    for (const Conversation& c : heldout_) excluded.insert({c.tokens.begin(), c.tokens.begin() + c.answer});
    Progress progress("self-study", "conversations", options_.conversations);
    std::vector<Conversation> made =
        study(options_.chunk).converse(options_.conversations, options_.training.seed, [&](int64_t done) {
          progress.update(done);
          throw_if_interrupted();
        });
    std::erase_if(made, [&](const Conversation& c) {
      return excluded.contains({c.tokens.begin(), c.tokens.begin() + c.answer});
    });
    return made;
  }

  std::vector<Conversation> pieces() const { return next_token_pieces(whole_, kPieceTokens); }

  const CartridgeOptions& options_;
  std::shared_ptr<Engine> engine_;
  Tokenizer tokenizer_;
  std::vector<int32_t> bos_, text_, whole_;
  Net base_;
  std::unique_ptr<CartridgeNet> slots_;
  std::vector<Conversation> heldout_;
  std::vector<std::vector<float>> expected_;  // logits of the answers of heldout_ after the whole text
};

void print_cartridge(const CartridgeOptions& options, int64_t tokens, double first, double trained, bool json) {
  const Json line = {{"slots", options.slots},
                     {"tokens", tokens},
                     {"study", options.study},
                     {"divergence_of_first_tokens", first},
                     {"divergence", trained}};
  if (json) return write_out(line.dump() + "\n");
  char text[200];
  std::snprintf(text, sizeof text,
                "%lld slots for %lld tokens\n"
                "divergence from the full text, nats per answer token: %.4f with the first tokens, %.4f trained\n",
                static_cast<long long>(options.slots), static_cast<long long>(tokens), first, trained);
  write_out(text);
}

}  // namespace

void add_cartridge_options(Command program, CartridgeOptions& options) {
  CartridgeOptions& o = options;
  program
      .add_option(
          "--cartridge", o.out,
          "without CONFIG: train the keys and values of a few slots that stand for a text, and write them to "
          "this GGUF file")
      .type_name("FILE");
  const auto add_size = [&](const std::string& name, int64_t& value, const std::string& help) {
    const auto set = [&o, &value, name](const std::string& text) {
      const auto size = parse_size(text);
      if (!size || *size < 1)
        fail_usage(name, ": expected a number of at least 1, such as 128 or 1k, found ", quote(text));
      o.given.push_back(name);
      value = *size;
    };
    program.add_option(name, set, "with --cartridge: " + help).type_name("SIZE");
  };
  add_size("--slots", o.slots, "slots; more hold more of the text and take more memory [128]");
  add_size("--conversations", o.conversations,
           "conversations about the text that the model writes to learn from; more take more time [320]");
  add_size(
      "--chunk", o.chunk,
      "shortest part of the text that is in view of a conversation; the longest has 4,096 tokens, or as many as "
      "this; more is slower and nearer to the whole text [4k]");
  add_size("--batch", o.training.batch, "conversations of a step; more take more time [16]");
  add_size("--study-steps", o.steps, "steps; more take more time [two passes over the conversations]");
  program
      .add_option(
          "--rate",
          [&o](const std::string& text) {
            o.given.push_back("--rate");
            o.training.rate = read_cartridge_rate(text);
          },
          "with --cartridge: learning rate of Adam in the first step; it decreases to 0 [0.01]")
      .type_name("RATE");
  program
      .add_option(
          "--study",
          [&o](const std::string& text) {
            o.given.push_back("--study");
            o.study = text;
          },
          "with --cartridge: self: learn the answers of the model to its own questions about the text; next: the "
          "text itself; none: keep the first tokens of the text [self]")
      .one_of({"self", "next", "none"})
      .type_name("STUDY");
}

void train_cartridge_of_text(const CartridgeOptions& options, const TextOptions& text, const TextReport& report) {
  text.check("--cartridge");
  TextCartridge made(options, text, report.plain);
  made.hold_out();
  const double first = made.divergence();
  if (options.study != "none") made.train();
  const double trained = options.study == "none" ? first : made.divergence();
  made.write();
  print_cartridge(options, made.tokens(), first, trained, report.json);
}

}  // namespace fathom::train
