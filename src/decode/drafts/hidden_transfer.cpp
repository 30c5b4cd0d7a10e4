// Drafts of pseudo rows, whose residual stream is computed from that of a token in the middle of the layers.
#include <memory>
#include <string>

#include "decode/draft.h"
#include "decode/drafts/draft_file.h"
#include "decode/drafts/probed_draft.h"

namespace fathom {
namespace {

constexpr int64_t kMaxTransfers = 4;
constexpr int64_t kMaxCandidates = 15;  // with the root 16 tokens, so that the pass of a CPU stays short

class HiddenTransferSource final : public DraftSource {
 public:
  HiddenTransferSource(const Values& values, const DraftSetup& setup)
      : file_(open_draft_file("hidden-transfer", values, setup)),
        transfer_(read(file_, setup.model->config())),
        drafts_(options(values, setup)) {}
  DraftNeeds needs() const override { return {.alone = true}; }
  Draft propose(const DraftContext& context, int nodes) override { return drafts_.propose(context, nodes); }
  void observe(const DraftOutcome& outcome) override { drafts_.observe(outcome); }

 private:
  static HiddenTransfer read(const DraftFile& file, const ModelConfig& model) {
    HiddenTransfer transfer;
    const int64_t steps = file.integer("steps", 1, kMaxTransfers);
    transfer.layers = file.ascending("transfer.layers", steps, 1, model.layers - 1);
    for (int64_t i = 0; i < steps; ++i)
      transfer.weights.push_back(file.matrix(concat("transfer.", i, ".weight"), model.width, model.width));
    return transfer;
  }
  ProbeOptions options(const Values& values, const DraftSetup& setup) const {
    ProbeOptions options;
    options.steps = transfer_.steps();
    options.candidates = static_cast<int>(values.integer("nodes"));
    options.topk = static_cast<int>(values.integer("topk"));
    options.transfer = &transfer_;
    options.chain = setup.session && setup.session->draft_shape() == Session::DraftShape::kChain;
    options.tokenizer = setup.tokenizer;
    return options;
  }

  DraftFile file_;
  HiddenTransfer transfer_;
  ProbedDrafts drafts_;
};

}  // namespace

DraftEntry hidden_transfer_method() {
  using Type = Parameter::Type;
  return {
      {.name = "hidden-transfer",
       .summary = "trained matrices turn the middle-layer state of each row into those of the next tokens, which "
                  "the upper layers of the same pass complete",
       .paper = "Parallel Decoding via Hidden Transfer for Lossless Large Language Model Acceleration, 2024",
       .exact = true,
       .needs = "a draft file (kind hidden-transfer) that was trained for the model; works alone only",
       .time = "rows of the pass: the candidates, and up to one row per step after each",
       .memory = "width² weights per step, and the logits of one row per step",
       .parameters = {draft_file_parameter(),
                      {.name = "nodes",
                       .type = Type::kInt,
                       .default_value = "8",
                       .summary = "most candidates of a draft; each needs rows of its own for the next draft",
                       .min = 1,
                       .max = kMaxCandidates},
                      {.name = "topk",
                       .type = Type::kInt,
                       .default_value = "4",
                       .summary = "most children of a node; fewer: deeper drafts",
                       .min = 1,
                       .max = kMaxCandidates}}},
      [](const Values& values, const DraftSetup& setup) {
        return std::make_unique<HiddenTransferSource>(values, setup);
      }};
}

}  // namespace fathom
