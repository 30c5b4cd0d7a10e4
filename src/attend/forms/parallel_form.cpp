#include "attend/forms/parallel_form.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fathom {

void ParallelForm::prepare_second_pass(AttentionBlock& block, const float* lse) const {
  const float factor = contexts_.scale * contexts_.temperature - 1;
  block.by_query.resize(block.queries_count());
  for (int q = 0; q < block.queries_count(); ++q) block.by_query[q] = std::isfinite(lse[q]) ? factor * lse[q] : 0;
}

void ParallelForm::list_reads(const AttentionBlock& block, int64_t begin, int64_t end, bool of_contexts,
                              std::vector<PageRead>& reads) const {
  reads.clear();
  for (int64_t i = begin; i < end; ++i) {
    PageRead read = block.reads[i];
    const int64_t first = block.read_tokens[i];
    const uint64_t contexts = page_bits(contexts_.begin - first, contexts_.end - first);
    read.mask &= of_contexts ? contexts : ~contexts;
    if (read.mask != 0) reads.push_back(read);
  }
}

void ParallelForm::attend(const Kernels& kernels, const AttentionBlock& block, int64_t begin, int64_t end,
                          float* out, float* lse, AttentionScratch& scratch) const {
  const int dim = block.kv->shape().value_dim, queries = block.queries_count();
  if (out) std::fill_n(out, static_cast<int64_t>(queries) * dim, 0.0f);
  std::fill_n(lse, queries, -std::numeric_limits<float>::infinity());
  list_reads(block, begin, end, true, scratch.reads);
  if (!scratch.reads.empty()) {
    scratch.scaled_queries.assign(block.queries.begin(), block.queries.end());
    for (float& value : scratch.scaled_queries) value /= contexts_.temperature;
    attend_pages(kernels, block, scratch.scaled_queries.data(), scratch.reads, out, lse, scratch);
  }
  if (!block.second_pass) return;
  for (int q = 0; q < queries; ++q) lse[q] += block.by_query[q];
  list_reads(block, begin, end, false, scratch.reads);
  if (scratch.reads.empty()) return;
  scratch.block_out.resize(static_cast<size_t>(queries) * dim);
  scratch.block_lse.resize(queries);
  attend_pages(kernels, block, block.queries.data(), scratch.reads, scratch.block_out.data(),
               scratch.block_lse.data(), scratch);
  for (int q = 0; q < queries; ++q) {
    const int64_t at = static_cast<int64_t>(q) * dim;
    merge_attention(out + at, lse[q], scratch.block_out.data() + at, scratch.block_lse[q], dim);
  }
}

}  // namespace fathom
