#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/format.h"
#include "decode/methods.h"

namespace fathom {
namespace {

struct TokenBias {
  int32_t token = 0;
  float amount = 0;
};

[[noreturn]] void fail_bias(std::string_view item) {
  fail_usage(
      concat("bias: expected TOKEN@AMOUNT, such as 42@-100, with an amount from -100 to 100, found ", quote(item)));
}

std::vector<TokenBias> parse_biases(std::string_view text) {
  std::vector<TokenBias> biases;
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find('+'));
    text.remove_prefix(std::min(item.size() + 1, text.size()));
    const char* const end = item.data() + item.size();
    TokenBias bias;
    const auto token = std::from_chars(item.data(), end, bias.token);
    if (token.ec != std::errc() || token.ptr == end || *token.ptr != '@' || bias.token < 0) fail_bias(item);
    const auto amount = std::from_chars(token.ptr + 1, end, bias.amount);
    if (amount.ec != std::errc() || amount.ptr != end || !(bias.amount >= -100 && bias.amount <= 100))
      fail_bias(item);
    biases.push_back(bias);
  }
  return biases;
}

/// Adds an amount to the logits of some tokens.
class LogitBias final : public SampleStep {
 public:
  explicit LogitBias(std::vector<TokenBias> biases) : biases_(std::move(biases)) {}

  void apply(Candidates& candidates, std::span<const int32_t>) const override {
    for (const TokenBias& bias : biases_)
      if (Candidate* candidate = candidates.find(bias.token)) candidate->logit += bias.amount;
  }
  bool draws() const override { return false; }

 private:
  std::vector<TokenBias> biases_;
};

}  // namespace

SampleEntry bias_method() {
  MethodInfo info{"",          "bias", "adds an amount to the logits of some tokens", "", false, "any model",
                  "O(tokens)", "none"};
  info.parameters = {
      {.name = "tokens",
       .type = Parameter::Type::kString,
       .summary = "TOKEN@AMOUNT+…, ids of tokens and amounts from -100 to 100; -100 all but bans a token"}};
  return {std::move(info), [](const Values& values) {
            return std::make_unique<LogitBias>(values.has("tokens") ? parse_biases(values.string("tokens"))
                                                                    : std::vector<TokenBias>());
          }};
}

}  // namespace fathom
