// Sharper (or flatter) attention: scores are divided by a temperature.
#include "attend/selector.h"

namespace fathom {
namespace {

class TempScale final : public Selector {
 public:
  explicit TempScale(const Values& values)
      : tau_(values.number("tau")), then_(attend_methods().make(values.string("then"))) {}

  void attach(const AttendContext& context) override { then_->attach(context); }
  std::unique_ptr<SequenceState> new_state() const override { return then_->new_state(); }
  void plan(const LayerQueries& queries, ThreadPool& pool) const override { then_->plan(queries, pool); }
  bool wants_surprise() const override { return then_->wants_surprise(); }
  void surprise(const Surprise& surprise, SequenceState* state) const override { then_->surprise(surprise, state); }
  float score_factor(int layer) const override { return then_->score_factor(layer) / static_cast<float>(tau_); }
  ScoreForm score_form(int layer, const ScoreForm& own) const override { return then_->score_form(layer, own); }
  void select(const Lane& lane, const QueryBlock& block, Selection& selection) const override {
    then_->select(lane, block, selection);
  }

 private:
  double tau_;
  std::unique_ptr<Selector> then_;
};

}  // namespace

MethodInfo tempscale_info() {
  using Type = Parameter::Type;
  return {.name = "tempscale",
          .summary = "attention scores divided by tau, in every layer and head; what is seen, `then` says",
          .paper = "Length-Induced Embedding Collapse in PLM-based Models, 2024",
          .needs = "any model; meant for embedding models: a language model's predictions become other ones",
          .time = "that of `then`",
          .memory = "that of `then`",
          .parameters = {{"tau", Type::kFloat, "0.9", "temperature; below 1 is sharper", 0.01, 100, {}},
                         {"then", Type::kSpec, "dense", "what is seen", {}, {}, {}}}};
}

std::unique_ptr<Selector> make_tempscale(const Values& values) { return std::make_unique<TempScale>(values); }

}  // namespace fathom
