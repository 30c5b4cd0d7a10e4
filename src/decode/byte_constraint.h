#pragma once

#include <memory>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/format.h"
#include "decode/allowed_tokens.h"
#include "decode/constraint.h"
#include "decode/token_bytes.h"

namespace fathom {

/// Constrains the bytes of the generated text to those of a language, in any tokenization: a token may follow if
/// its bytes continue a text of the language. Language has
///   State, a small value: what was generated so far;
///   State start() const;
///   bool step(State&, unsigned char byte) const: advances by a byte; false if no text of the language continues
///   so; bool may_end(const State&, int64_t tokens) const: whether the text can end after this many tokens; bool
///   must_end(const State&, int64_t tokens) const: whether nothing but the end can follow, although bytes could.
/// The vocabulary must be able to spell all texts of the language (TokenBytes::find_unspellable).
template <class Language>
class ByteConstraint final : public Constraint {
 public:
  ByteConstraint(std::shared_ptr<const TokenBytes> tokens, Language language)
      : rule_(std::make_shared<Rule>(Rule{std::move(tokens), std::move(language)})) {}

  std::unique_ptr<ConstraintState> start() const override { return std::make_unique<State>(rule_); }

 private:
  struct Rule {
    std::shared_ptr<const TokenBytes> tokens;
    Language language;
  };

  class State final : public ConstraintState {
   public:
    explicit State(std::shared_ptr<const Rule> rule) : rule_(std::move(rule)), state_(rule_->language.start()) {}

    std::unique_ptr<ConstraintState> fork() const override { return std::make_unique<State>(*this); }

    void restrict(Candidates& candidates) const override {
      AllowedTokens allowed(rule_->tokens->vocabulary());
      if (may_end())
        for (const int32_t token : rule_->tokens->ends()) allowed.add(token);
      if (may_continue()) {
        rule_->tokens->for_each_allowed(
            state_, [&](auto& state, unsigned char byte) { return rule_->language.step(state, byte); },
            [&](int32_t token) { allowed.add(token); });
      }
      allowed.restrict(candidates);
    }

    void take(int32_t token) override {
      if (rule_->tokens->is_end(token)) {
        if (!may_end()) fail("the constraint does not allow the text to end here");
        ended_ = true;
        return;
      }
      const std::string_view bytes = rule_->tokens->of(token);
      bool allowed = may_continue() && !bytes.empty();
      for (size_t i = 0; allowed && i < bytes.size(); ++i)
        allowed = rule_->language.step(state_, static_cast<unsigned char>(bytes[i]));
      if (!allowed) fail("the constraint does not allow token ", token, " (", quote(bytes), ") here");
      ++count_;
    }

   private:
    bool may_end() const { return ended_ || rule_->language.may_end(state_, count_); }
    bool may_continue() const { return !ended_ && !rule_->language.must_end(state_, count_); }

    std::shared_ptr<const Rule> rule_;
    typename Language::State state_;
    int64_t count_ = 0;   // tokens taken
    bool ended_ = false;  // by an end-of-generation token, after which only such tokens may follow
  };

  std::shared_ptr<const Rule> rule_;
};

}  // namespace fathom
