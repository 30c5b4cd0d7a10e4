// A window, and the older blocks whose representative keys match the queries best.
#include "attend/block_memory.h"
#include "attend/methods.h"
#include "base/common_parameters.h"

namespace fathom {
namespace {

class InfLlm final : public BlockSelector {
 public:
  explicit InfLlm(const Values& values)
      : BlockSelector(read_block_options(values)), block_(values.integer("block")), topk_(values.integer("topk")) {}

 protected:
  int64_t block_end(int64_t begin, int64_t, const LayerQueries&, BlockState&, ThreadPool&) const override {
    return begin + block_;
  }
  std::vector<uint32_t> select_blocks(const QueryChunk& chunk, int64_t, BlockState& state,
                                      ThreadPool& pool) const override {
    const LayerBlocks& layer = state.layers[chunk.layer.layer];
    if (std::ssize(layer.blocks) <= topk_) return best_blocks(std::vector<float>(layer.blocks.size()), topk_);
    return best_blocks(block_scores(layer, mean_far_query(chunk, pool), pool), topk_);
  }

 private:
  int64_t block_, topk_;
};

}  // namespace

SelectorEntry infllm_method() {
  std::vector<Parameter> parameters =
      block_parameters({.sink = 128, .window = 4096, .chunk = 512, .representatives = 4});
  parameters.push_back(block_parameter({.value = "128", .min = 8, .max = 1e9}));
  parameters.push_back(topk_parameter(
      {.value = "16",
       .min = 1,
       .max = 1e9,
       .summary = "older blocks visible to a chunk of queries; more is closer to dense attention and slower"}));
  return {
      {.name = "infllm",
       .summary = "a window, and the older blocks whose representative keys match the query best",
       .paper = "InfLLM: Training-Free Long-Context Extrapolation for LLMs with an Efficient Context Memory, 2024",
       .needs = "any model",
       .time = "O(sink + topk * block + window + n / block) per token",
       .memory = "O(n): nothing is evicted; a vector of all query heads for each block and for each 64 tokens of "
                 "the last two windows",
       .parameters = std::move(parameters),
       .capabilities = {.needs_host_pages = true, .works_on_recurrent = true, .works_with_drafts = true}},
      [](const Values& values) { return std::make_unique<InfLlm>(values); }};
}

}  // namespace fathom
