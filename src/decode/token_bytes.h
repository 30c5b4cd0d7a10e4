#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tokens/tokenizer.h"

namespace fathom {

/// The bytes that each token of a vocabulary adds to a generated text, for rules about bytes. Immutable.
class TokenBytes {
 public:
  /// Throws Error if the vocabulary has no end-of-generation token.
  explicit TokenBytes(const Tokenizer& tokenizer);

  /// Number of tokens of the vocabulary.
  int32_t vocabulary() const { return static_cast<int32_t>(begin_.size()) - 1; }
  /// Returns the bytes of a token; empty for tokens that add no text (control, unknown, unused and
  /// end-of-generation tokens) and for ids outside the vocabulary.
  std::string_view of(int32_t token) const {
    if (token < 0 || token >= vocabulary()) return {};
    return std::string_view(bytes_).substr(begin_[token], begin_[token + 1] - begin_[token]);
  }
  /// The end-of-generation tokens, ascending; at least one.
  std::span<const int32_t> ends() const { return ends_; }
  bool is_end(int32_t token) const;

  /// Calls visit(token), or visit(token, state after it), for each token whose bytes can be taken one after another
  /// from `state`.
  /// step(State&, unsigned char) advances the state by a byte, or returns false if the byte may not follow. Tokens
  /// are visited in the order of their bytes, so common prefixes are stepped through once.
  template <class State, class Step, class Visit>
  void for_each_allowed(const State& state, const Step& step, const Visit& visit) const {
    std::vector<State> path{state};  // after the first 0, 1, … bytes of the current token
    for (size_t i = 0; i < sorted_.size(); ++i) {
      if (shared_[i] >= path.size()) continue;  // begins with the bytes that another token failed with
      path.erase(path.begin() + shared_[i] + 1, path.end());
      const std::string_view bytes = of(sorted_[i]);
      bool allowed = true;
      while (allowed && path.size() <= bytes.size()) {
        State next = path.back();
        allowed = step(next, static_cast<unsigned char>(bytes[path.size() - 1]));
        if (allowed) path.push_back(std::move(next));
      }
      if (!allowed) continue;
      if constexpr (std::is_invocable_v<const Visit&, int32_t, const State&>) {
        visit(sorted_[i], path.back());
      } else {
        visit(sorted_[i]);
      }
    }
  }

  /// Returns whether each byte has a token of its own. Otherwise tokens that end inside a UTF-8 character add no
  /// text, so that each generated character is complete.
  bool has_all_bytes() const { return has_all_bytes_; }
  /// Returns the position of the first character of `text` that no tokens can spell; nothing if there is none.
  std::optional<size_t> find_unspellable(std::string_view text) const;
  /// Returns tokens whose bytes are `text`: repeatedly the longest token that matches. Throws Error if the
  /// vocabulary cannot spell it.
  std::vector<int32_t> spell(std::string_view text) const;

 private:
  std::string bytes_;          // of all tokens
  std::vector<size_t> begin_;  // [vocabulary + 1] in bytes_
  std::vector<int32_t> ends_;
  std::vector<int32_t> sorted_;   // tokens with bytes, in lexicographic order
  std::vector<uint16_t> shared_;  // bytes that a sorted token has in common with the one before it
  PieceTrie trie_;
  bool has_all_bytes_ = false;
};

}  // namespace fathom
