#include "attend/attention_form.h"

namespace fathom {

void AttentionForm::attend(const Kernels& kernels, const AttentionBlock& block, int64_t begin, int64_t end,
                           float* out, float* lse, AttentionScratch& scratch) const {
  attend_pages(kernels, block, block.queries.data(), std::span(block.reads).subspan(begin, end - begin), out, lse,
               scratch);
}

void AttentionForm::attend_pages(const Kernels& kernels, const AttentionBlock& block, const float* queries,
                                 std::span<const PageRead> pages, float* out, float* lse,
                                 AttentionScratch& scratch) const {
  const PageShape& shape = block.kv->shape();
  AttendTask task;
  task.format = shape.format;
  task.key_dim = shape.key_dim;
  task.value_dim = shape.value_dim;
  task.value_offset = shape.value_offset;
  task.rotary_dim = 2 * block.kv->rotations().pairs();
  task.rows = block.rows;
  task.group = block.group;
  task.queries = queries;
  task.pages = pages.data();
  task.page_count = std::ssize(pages);
  task.weights = weights(kernels, block);
  task.out = out;
  task.lse = lse;
  scratch.floats.reserve(attend_scratch(shape.key_dim, shape.value_dim, block.queries_count()));
  kernels.attend(task, scratch.floats.data());
}

const AttentionForm& softmax_form() {
  static const AttentionForm form;
  return form;
}

}  // namespace fathom
