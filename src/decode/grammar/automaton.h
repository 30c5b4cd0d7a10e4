#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "decode/allowed_tokens.h"
#include "decode/grammar/grammar.h"
#include "decode/token_bytes.h"

namespace fathom {

/// Reads texts of a grammar byte by byte and finds the tokens that may follow. A state is the set of all ways in
/// which the text so far can be read: states of the grammar, each with a stack of those to return to. States and
/// transitions are computed when they are first needed and kept, and so are sets of tokens: within a bound of
/// memory, beyond which they are computed again. Thread-safe.
class GrammarAutomaton {
 public:
  /// The identifier of a set of ways.
  using State = int32_t;
  static constexpr State kDead = -1;

  /// memory: bytes of what may be computed again.
  GrammarAutomaton(std::shared_ptr<const TokenBytes> tokens, std::shared_ptr<const Grammar> grammar,
                   size_t memory = size_t{128} << 20);

  const TokenBytes& tokens() const { return *tokens_; }
  State start() const { return start_; }
  /// Returns the state after further bytes; kDead if no text of the grammar continues so. Throws Error if there are
  /// too many ways to read the text.
  State step(State state, std::string_view bytes);
  /// Returns whether the text can end.
  bool may_end(State state);
  /// Returns the tokens that may follow, with the end-of-generation tokens if the text can end. Throws as step().
  std::shared_ptr<const AllowedTokens> allowed(State state);
  /// Returns the bytes of what may be computed again.
  size_t bytes() const {
    const std::lock_guard lock(mutex_);
    return bytes_;
  }
  /// Returns about the bytes of the states, which are kept as long as the automaton.
  size_t state_bytes() const {
    const std::lock_guard lock(mutex_);
    return state_bytes_ + stacks_.size() * kFrameBytes;
  }

 private:
  static constexpr int32_t kEmptyStack = 0;   // the text ends with the rule
  static constexpr int32_t kHiddenStack = 1;  // what is below is not known
  static constexpr State kUnknown = -2;
  static constexpr size_t kFrameBytes = 64;  // with its entry in stack_ids_

  struct Way {
    int32_t stack = 0, state = 0;
    auto operator<=>(const Way&) const = default;
  };
  struct Set {
    std::vector<Way> ways;  // sorted; each can read a byte
    bool ends = false;      // whether the text can end
    bool leaves = false;    // whether a way returns to what is hidden
    bool operator==(const Set&) const = default;
  };
  struct SetHash {
    size_t operator()(const Set& set) const;
  };
  /// What is computed of a state when it is needed.
  struct Computed {
    std::unique_ptr<std::array<State, 256>> next;
    std::shared_ptr<const AllowedTokens> allowed;
  };
  /// Tokens by ways alone, whatever is below the stack that they have in common.
  struct LocalTokens {
    AllowedTokens allowed;
    std::vector<int32_t> undecided;  // tokens that return to what is below
  };

  State step(State state, unsigned char byte);
  void close(int32_t stack, int32_t state, Set& set);
  State intern(Set set);
  int32_t push(int32_t stack, int32_t state);
  std::shared_ptr<const AllowedTokens> compute_allowed(State state);
  const LocalTokens& local_tokens(State hidden);
  State hide_common_stack(const Set& set);
  void bound_memory();

  std::shared_ptr<const TokenBytes> tokens_;
  std::shared_ptr<const Grammar> grammar_;
  size_t memory_;
  mutable std::mutex mutex_;
  struct Frame {
    int32_t below = -1, state = -1;
    int32_t depth = 0;
  };
  std::vector<Frame> stacks_;
  std::unordered_map<uint64_t, int32_t> stack_ids_;
  std::vector<const Set*> sets_;  // by state
  std::unordered_map<Set, State, SetHash> states_;
  std::vector<Computed> computed_;                // by state
  std::unordered_map<State, LocalTokens> local_;  // by hide_common_stack()
  std::vector<Way> seen_;                         // of the closure that is being computed
  size_t bytes_ = 0;                              // of computed_ and local_
  size_t state_bytes_ = 0;
  State start_ = kDead;
};

}  // namespace fathom
