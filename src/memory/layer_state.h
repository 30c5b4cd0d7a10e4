#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "memory/draft_tree.h"

namespace fathom {

class PagedKv;
class RecurrentState;

/// The tokens of a pass, as layer states open room for them.
struct OpenedTokens {
  std::span<const int64_t> positions;
  /// Numbers of tokens of the pass, ascending, after which recurrent states are kept; the last is all of them.
  std::span<const int64_t> stops;
  /// Of a draft: the tokens are its nodes, and positions are those of their depths. null: tokens that follow each
  /// other.
  const DraftTree* draft = nullptr;
};

/// What one layer keeps of one sequence. A pass opens room for tokens, the layer's mixer writes it, and then the
/// tokens are committed, accepted in part (of a draft), or truncated again.
class LayerState {
 public:
  virtual ~LayerState() = default;
  /// A copy that shares memory with this one until either changes. Not while tokens are open.
  virtual std::unique_ptr<LayerState> fork() const = 0;

  /// Opens room for tokens. On failure truncate(tokens before) restores what it held.
  virtual void open(const OpenedTokens& tokens) = 0;
  /// The opened tokens have been written and stay. Throws nothing.
  virtual void commit() noexcept {}
  /// Of an opened draft the nodes of one path stay, in their order; the others are forgotten.
  virtual void accept(std::span<const int> path) = 0;

  /// The largest number of tokens, at most `tokens`, to which truncate can go back.
  virtual int64_t floor(int64_t tokens) const = 0;
  /// Keeps the first `tokens` tokens, for which floor(tokens) = tokens must hold. Forgets what is open.
  virtual void truncate(int64_t tokens) = 0;

  /// Bytes held, those shared with forks included.
  virtual size_t bytes() const = 0;

  /// The part of the state that is pages, or null.
  virtual PagedKv* paged() { return nullptr; }
  /// The part of the state that is a recurrence, or null.
  virtual RecurrentState* recurrent() { return nullptr; }
};

/// The state of a layer without a mixer, or with several that read the same rows: pages and a recurrence.
class CombinedState final : public LayerState {
 public:
  /// Either may be null.
  CombinedState(std::unique_ptr<LayerState> paged, std::unique_ptr<LayerState> recurrent)
      : parts_{std::move(paged), std::move(recurrent)} {}
  std::unique_ptr<LayerState> fork() const override;
  void open(const OpenedTokens& tokens) override;
  void commit() noexcept override;
  void accept(std::span<const int> path) override;
  int64_t floor(int64_t tokens) const override;
  void truncate(int64_t tokens) override;
  size_t bytes() const override;
  PagedKv* paged() override { return parts_[0] ? parts_[0]->paged() : nullptr; }
  RecurrentState* recurrent() override { return parts_[1] ? parts_[1]->recurrent() : nullptr; }

 private:
  std::unique_ptr<LayerState> parts_[2];
};

}  // namespace fathom
