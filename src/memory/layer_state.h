#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace fathom {

class PagedKv;
class RecurrentState;

/// The tokens of a forward pass for which layer states allocate room.
struct OpenedTokens {
  std::span<const int64_t> positions;  // of the tokens
  /// Numbers of tokens of the pass after which recurrent states are stored, ascending; the last is the number of
  /// all tokens.
  std::span<const int64_t> stops;
};

/// The state of one sequence in one layer. A forward pass opens room for tokens, the layer's mixer writes them, and
/// then they are committed, accepted in part, or truncated.
class LayerState {
 public:
  virtual ~LayerState() = default;
  /// Returns a copy that shares memory with this state until either changes. No tokens may be open.
  virtual std::unique_ptr<LayerState> fork() const = 0;

  /// Opens room for tokens. If it throws, truncate(number of tokens before) restores the previous state.
  virtual void open(const OpenedTokens& tokens) = 0;
  /// Keeps the opened tokens, which have been written.
  virtual void commit() noexcept {}
  /// Keeps the first `count` opened tokens and discards the others. There was a stop after each token.
  virtual void accept(int64_t count) = 0;

  /// Returns the largest number of tokens, at most `tokens`, to which truncate can shorten the state.
  virtual int64_t floor(int64_t tokens) const = 0;
  /// Keeps the first `tokens` tokens; floor(tokens) = tokens must hold. Discards open tokens.
  virtual void truncate(int64_t tokens) = 0;

  /// Bytes held, including bytes shared with forks.
  virtual size_t bytes() const = 0;

  /// Returns the paged keys and values of the state, or null.
  virtual PagedKv* paged() { return nullptr; }
  /// Returns the recurrent part of the state, or null.
  virtual RecurrentState* recurrent() { return nullptr; }
};

/// The state of a layer with both attention and a recurrence that read the same rows, or of a layer without a
/// mixer.
class CombinedState final : public LayerState {
 public:
  /// Either part may be null.
  CombinedState(std::unique_ptr<LayerState> paged, std::unique_ptr<LayerState> recurrent)
      : parts_{std::move(paged), std::move(recurrent)} {}
  std::unique_ptr<LayerState> fork() const override;
  void open(const OpenedTokens& tokens) override;
  void commit() noexcept override;
  void accept(int64_t count) override;
  int64_t floor(int64_t tokens) const override;
  void truncate(int64_t tokens) override;
  size_t bytes() const override;
  PagedKv* paged() override { return parts_[0] ? parts_[0]->paged() : nullptr; }
  RecurrentState* recurrent() override { return parts_[1] ? parts_[1]->recurrent() : nullptr; }

 private:
  std::unique_ptr<LayerState> parts_[2];
};

}  // namespace fathom
