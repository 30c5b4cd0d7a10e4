// The functions of Engine for drafts.
#include <algorithm>
#include <ranges>

#include "base/error.h"
#include "session/engine.h"

namespace fathom {
namespace {

/// Throws Error if the pseudo rows of a draft are invalid.
void check_transfer(const Rows& rows) {
  const OpenDraft& draft = *rows.draft;
  if (!draft.transfer) return;
  const HiddenTransfer& transfer = *draft.transfer;
  if (transfer.weights.size() != transfer.layers.size())
    fail("hidden transfer: expected one matrix for each of the ", transfer.steps(), " layers, found ",
         transfer.weights.size());
  for (const int layer : transfer.layers)
    if (layer < 1 || layer >= rows.sequence->layers() || !std::ranges::is_sorted(transfer.layers))
      fail("hidden transfer: expected ascending layers from 1 to ", rows.sequence->layers() - 1, ", found ", layer);
  if (std::ssize(draft.steps) != draft.tree.size())
    fail("hidden transfer: expected one step for each of the ", draft.tree.size(), " nodes, found ",
         draft.steps.size());
  for (int node = 0; node < draft.tree.size(); ++node) {
    const int step = draft.steps[node], parent = draft.tree.parent(node);
    const int before = parent < 0 ? 0 : draft.steps[parent];
    const bool valid = step == 0 ? before == 0 : parent >= 0 && step == before + 1;
    if (!valid || step > transfer.steps())
      fail("hidden transfer: node ", node, " cannot have step ", step, " of ", transfer.steps(),
           " after a node with step ", before);
  }
}

}  // namespace

/// Throws Error for an invalid draft.
void Engine::check_draft(const Rows& rows) {
  if (!rows.positions.empty()) fail("draft: expected no positions, since they follow from the depths of the nodes");
  if (std::ssize(rows.draft->tokens) != rows.draft->tree.size())
    fail("draft: expected one token for each of the ", rows.draft->tree.size(), " nodes, found ",
         rows.draft->tokens.size());
  check_transfer(rows);
  if (rows.draft->tree.is_chain()) return;
  if (rows.sequence->has_recurrent_layers())
    fail_usage("this model has recurrent layers: expected a draft without branches");
  if (rows.sequence->state(Sequence::StateOf::kSelector))
    fail_usage("this --attend method keeps a state: expected a draft without branches");
}

/// Divides the tree into paths from a root to a leaf and opens each in a sequence.
void Engine::open_draft(Rows& rows) {
  Sequence& sequence = *rows.sequence;
  OpenDraft& draft = *rows.draft;
  draft.leaves.clear();
  draft.rows.assign(draft.tree.size(), -1);
  std::vector<char> inner(draft.tree.size());
  for (int node = 0; node < draft.tree.size(); ++node)
    if (draft.tree.parent(node) >= 0) inner[draft.tree.parent(node)] = true;
  int64_t next_row = 0;
  for (int node = 0; node < draft.tree.size(); ++node) {
    if (inner[node]) continue;
    OpenDraft::Leaf leaf{nullptr, draft.tree.path(node), 0, {}};
    for (const int step : leaf.path) {
      leaf.positions.push_back(sequence.next_position() + draft.tree.depth(step));
      if (draft.rows[step] >= 0) {
        ++leaf.shared;
      } else {
        draft.rows[step] = next_row++;
      }
    }
    draft.leaves.push_back(std::move(leaf));
  }
  for (size_t i = 1; i < draft.leaves.size(); ++i)
    draft.leaves[i].fork = std::make_unique<Sequence>(sequence.fork());
  const SequenceState* state = sequence.state(Sequence::StateOf::kSelector);
  draft.selector_state = state ? state->fork() : nullptr;
  const bool needs_queries = state || rows.policy.listener;
  draft.queries.layers.assign(needs_queries ? sequence.layers() : 0, {});
  std::vector<int32_t> ids;
  for (OpenDraft::Leaf& leaf : std::views::reverse(draft.leaves)) {  // the sequence itself last: if a fork fails,
    ids.clear();                                                     // it is unchanged
    for (const int node : leaf.path) ids.push_back(draft.tokens[node]);
    (leaf.fork ? *leaf.fork : sequence).open(leaf.positions, ids, true);
  }
}

/// Replaces the residual streams of the pseudo rows that begin with this layer. hidden: [rows, width], its input.
void Engine::transfer_states(const Member& member, int layer, float* hidden) const {
  const OpenDraft& draft = *member.rows->draft;
  const int64_t width = model_->config().width;
  Workspace& work = runtime_->work();
  for (int s = 0; s < draft.transfer->steps(); ++s) {
    if (draft.transfer->layers[s] != layer) continue;
    std::vector<int> nodes;
    for (int node = 0; node < draft.tree.size(); ++node)
      if (draft.steps[node] == s + 1) nodes.push_back(node);
    const auto count = static_cast<int64_t>(nodes.size());
    work.logit_rows.resize(count, width, count);
    work.scratch.reserve(count * width);
    for (int64_t i = 0; i < count; ++i) {
      int token = nodes[i];
      while (draft.steps[token] > 0) token = draft.tree.parent(token);
      std::copy_n(hidden + member.row(token) * width, width, work.logit_rows.row(i));
    }
    const Product products[] = {{&draft.transfer->weights[s], work.scratch.data()}};
    matmul(work.pool, work.kernels, work.logit_rows, products);
    for (int64_t i = 0; i < count; ++i)
      std::copy_n(work.scratch.data() + i * width, width, hidden + member.row(nodes[i]) * width);
  }
}

void Engine::accept(const Rows& rows, std::span<const int> path) {
  Sequence& sequence = *rows.sequence;
  OpenDraft& draft = *rows.draft;
  if (path.empty()) return abandon(rows);
  if (!draft.tree.is_path(path) || (draft.transfer && draft.steps[path.back()] > 0)) {
    abandon(rows);
    fail("the accepted tokens are not a path of the draft");
  }
  const auto leaf = std::ranges::find_if(
      draft.leaves, [&](const OpenDraft::Leaf& l) { return std::ranges::count(l.path, path.back()) > 0; });
  try {
    (leaf->fork ? *leaf->fork : sequence).accept(std::ssize(path));
  } catch (...) {
    abandon(rows);
    throw;
  }
  if (leaf->fork) sequence = std::move(*leaf->fork);
  const bool all_planned = path.size() == leaf->path.size();
  if (draft.selector_state && !all_planned)
    sequence.set_state(Sequence::StateOf::kSelector, std::move(draft.selector_state));
  if (!draft.queries.layers.empty()) replay(rows, path, !all_planned);
  draft.leaves.clear();
}

/// Passes the queries of the accepted nodes to the listener, and to the selector's plan() if `plan`, row by row and
/// layer by layer.
void Engine::replay(const Rows& rows, std::span<const int> path, bool plan) {
  Sequence& sequence = *rows.sequence;
  const OpenDraft& draft = *rows.draft;
  plan = plan && sequence.state(Sequence::StateOf::kSelector);
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    const DraftQueries::Layer& kept = draft.queries.layers[layer];
    if (kept.queries.empty()) continue;
    AttentionInput input;
    input.sequence = &sequence;
    input.layer = layer;
    input.heads = kept.heads;
    input.rows = 1;
    input.query_stride = static_cast<int64_t>(kept.heads) * sequence.paged(layer)->shape().key_dim;
    input.form = kept.form;
    input.scale = kept.scale;
    input.selector = rows.policy.selector;
    for (size_t i = 0; i < path.size(); ++i) {
      const int64_t later = std::ssize(path) - 1 - static_cast<int64_t>(i);
      const std::unique_ptr<const PagedKv> kv = sequence.paged(layer)->without_newest(later);
      input.kv = kv.get();
      const int64_t position = kv->next_position() - 1;
      input.positions = &position;
      input.queries = kept.queries.data() + draft.rows[path[i]] * input.query_stride;
      LayerQueries queries = input.layer_queries(runtime_->work().kernels);
      if (plan) {
        queries.state = sequence.state(Sequence::StateOf::kSelector);
        input.selector->plan(queries, runtime_->pool());
      }
      if (rows.policy.listener) {
        queries.state = sequence.state(Sequence::StateOf::kEvictor);
        rows.policy.listener->listen(queries, runtime_->pool());
      }
    }
  }
}

}  // namespace fathom
