#include "decode/drafts/draft_heads.h"

#include <algorithm>

namespace fathom {
namespace {

constexpr int64_t kMaxHeads = 8, kMaxBlocks = 64;

}  // namespace

DraftHeads::DraftHeads(DraftFile file, std::shared_ptr<const Model> model)
    : file_(std::move(file)), model_(std::move(model)), sequential_(file_.boolean("sequential")) {
  const int64_t width = model_->config().width, steps = file_.integer("steps", 1, kMaxHeads),
                blocks = file_.integer("blocks", 1, kMaxBlocks);
  for (int64_t i = 0; i < steps; ++i) {
    Head& head = heads_.emplace_back();
    const std::string name = concat("head.", i, ".");
    const int64_t inputs = sequential_ ? (i + 2) * width : width;
    if (sequential_) head.residual = file_.matrix(name + "residual.weight", width, inputs);
    for (int64_t k = 0; k < blocks; ++k) {
      const std::string block = concat(name, "block.", k, ".");
      head.blocks.push_back(
          {file_.matrix(block + "weight", width, k == 0 ? inputs : width), file_.vector(block + "bias", width)});
    }
    if (file_.has(name + "output.weight"))
      head.output = file_.matrix(name + "output.weight", model_->config().vocabulary, width);
  }
}

/// Adds silu(W · input + b) to the states, or to residual · input, which then replaces them.
void DraftHeads::add_block(Workspace& work, const Block& block, ActivationBuffer& input, const Matrix& residual) {
  const int64_t count = states_.rows() * states_.cols();
  const Product products[] = {{&block.weight, update_.data(), block.bias}, {&residual, states_.data()}};
  matmul(work.pool, work.kernels, input, std::span(products).first(residual.empty() ? 1 : 2));
  work.kernels.silu(update_.data(), count);
  work.kernels.add(states_.data(), update_.data(), count);
}

std::span<const float> DraftHeads::logits(Workspace& work, int i, std::span<const float> hidden,
                                          std::span<const int32_t> paths) {
  const Head& head = heads_[i];
  const int64_t width = model_->config().width, vocabulary = model_->config().vocabulary, length = i + 1,
                rows = std::ssize(paths) / length;
  inputs_.resize(rows, head.blocks[0].weight.cols);
  states_.resize(rows, width);
  update_.resize(rows * width);
  logits_.resize(rows * vocabulary);
  for (int64_t r = 0; r < rows; ++r) {
    std::ranges::copy(hidden, inputs_.row(r));
    if (sequential_) {
      model_->network().embeddings(work, paths.subspan(r * length, length), inputs_.row(r) + width);
    } else {
      std::ranges::copy(hidden, states_.row(r));
    }
  }
  for (size_t k = 0; k < head.blocks.size(); ++k)
    add_block(work, head.blocks[k], k == 0 ? inputs_ : states_, k == 0 ? head.residual : Matrix());
  if (head.output.empty()) {
    work.adapted_rows.clear();
    model_->network().logits(work, states_, logits_.data());
  } else {
    const Product products[] = {{&head.output, logits_.data()}};
    matmul(work.pool, work.kernels, states_, products);
  }
  return logits_;
}

}  // namespace fathom
