#pragma once

#include <memory>
#include <string>

#include "attend/block_memory.h"
#include "scene.h"
#include "seed.h"

namespace fathom::test {

/// A scene with a block method, which can also read the tokens before the scene's rows.
struct BlockScene {
  BlockScene(const SceneShape& shape, const std::string& spec)
      : scene(shape), selector(attend_methods().make(spec)) {
    std::mt19937 random(test::seed(shape.seed + 77));
    std::normal_distribution<float> normal;
    queries.resize(scene.first_row() * width());
    for (float& q : queries) q = normal(random);
    nats.resize(shape.tokens);
    for (float& n : nats) n = normal(random);
    restart(spec);
  }

  /// Discards the state and switches to another method.
  void restart(const std::string& spec) {
    selector = attend_methods().make(spec);
    selector->attach(scene.context());
    scene.sequence.set_state(Sequence::StateOf::kSelector, selector->new_state());
  }

  int64_t width() const { return static_cast<int64_t>(scene.shape.heads) * scene.shape.key_dim; }
  BlockState& state() const {
    return *static_cast<BlockState*>(scene.sequence.state(Sequence::StateOf::kSelector));
  }
  const LayerBlocks& layer() const { return state().layers[0]; }

  LayerQueries rows(int64_t begin, int64_t end) const {
    LayerQueries q;
    q.sequence = &scene.sequence;
    q.kv = &scene.sequence.kv(0);
    q.heads = scene.shape.heads;
    q.first = begin;
    q.rows = end - begin;
    q.positions = scene.positions.data() + begin;
    q.queries = begin < scene.first_row() ? queries.data() + begin * width()
                                          : scene.queries.data() + (begin - scene.first_row()) * width();
    q.stride = width();
    q.kernels = &kernels();
    q.state = scene.sequence.state(Sequence::StateOf::kSelector);
    return q;
  }
  /// Reads tokens [begin, end), which must all be before the scene's rows or all among them.
  void read(int64_t begin, int64_t end) const {
    selector->plan(rows(begin, end), pool);
    if (selector->needs_surprisal())
      selector->surprisal({begin, std::span(nats).subspan(begin, end - begin)}, &state());
  }
  /// Reads all tokens before the scene's rows.
  void read_before(int64_t at_once) const {
    for (int64_t t = 0; t < scene.first_row(); t += at_once) read(t, std::min(t + at_once, scene.first_row()));
  }
  /// Returns the attention of the scene's rows.
  Attended attended() const { return attend(scene, *selector, pool); }

  Scene scene;
  std::unique_ptr<Selector> selector;
  std::vector<float> queries;  // of the tokens before the scene's rows
  std::vector<float> nats;     // [tokens]
  mutable ThreadPool pool{2};
};

/// Returns [rows, tokens]: the position at which each row attends to each token; −1: not at all. Expects that no
/// row attends to a token twice.
inline std::vector<int64_t> attended_positions(const BlockScene& test, int kv_head) {
  const SceneShape& s = test.scene.shape;
  const PageTable& table = test.scene.sequence.kv(0).table(kv_head);
  test.selector->plan(test.rows(test.scene.first_row(), s.tokens), test.pool);
  QueryBlock block;
  block.head = kv_head;
  block.group = test.scene.group();
  block.first = test.scene.first_row();
  block.rows = static_cast<int>(s.rows);
  block.positions = test.scene.positions.data() + block.first;
  block.kv = &test.scene.sequence.kv(0);
  block.kernels = &kernels();
  block.state = test.scene.sequence.state(Sequence::StateOf::kSelector);
  Selection selection;
  test.selector->select(table, block, selection);
  std::vector<int64_t> positions(s.rows * s.tokens, -1);
  for (const SelectedPage& page : selection.pages) {
    EXPECT_GE(page.position, 0);
    for (int64_t r = 0; r < s.rows; ++r) {
      const uint64_t mask = page.row_masks < 0 ? page.mask : page.mask & selection.row_masks.at(page.row_masks + r);
      for (int o = 0; o < kPageTokens; ++o) {
        const int64_t token = table[page.entry].first + o;
        if (!(mask >> o & 1) || token > block.first + r) continue;
        EXPECT_EQ(positions[r * s.tokens + token], -1) << "row " << r << " attends to token " << token << " twice";
        positions[r * s.tokens + token] = page.position + o;
      }
    }
  }
  return positions;
}

}  // namespace fathom::test
