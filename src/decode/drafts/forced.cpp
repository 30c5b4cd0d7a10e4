#include "decode/drafts/forced.h"

#include <algorithm>

#include "base/error.h"
#include "decode/random.h"

namespace fathom {
namespace {

/// The random numbers that decide which tokens are right.
constexpr auto kForcedStream = static_cast<RandomStream>(17);

class ForcedSource final : public DraftSource {
 public:
  ForcedSource(double accept, int64_t length, std::vector<int32_t> continuation, int32_t vocabulary)
      : accept_(accept), length_(length), continuation_(std::move(continuation)), vocabulary_(vocabulary) {}

  Draft propose(const DraftContext& context, int nodes) override {
    const int64_t next = std::ssize(context.tokens) - context.prompt;  // index of the token after the pending one
    const int64_t end = std::min<int64_t>(std::ssize(continuation_), next + std::min<int64_t>(nodes, length_));
    Draft draft;
    bool right = true;
    for (int64_t i = next; i < end; ++i) {
      const bool wrong = uniform_from(random_bits(0, kForcedStream, i, 0)) >= accept_;
      // After a wrong token no other one is accepted, so the next ones may be any tokens.
      const int32_t token = right && wrong ? (continuation_[i] + 1) % vocabulary_ : continuation_[i];
      right = right && !wrong;
      draft.add(draft.size() - 1, token, std::max(static_cast<float>(accept_), kSmallestEstimate));
    }
    return draft;
  }

 private:
  static constexpr float kSmallestEstimate = 1e-3f;  // estimates are above 0

  double accept_;
  int64_t length_;
  std::vector<int32_t> continuation_;
  int32_t vocabulary_;
};

}  // namespace

std::vector<Parameter> forced_parameters() {
  using Type = Parameter::Type;
  return {{.name = "accept",
           .type = Type::kFloat,
           .default_value = "0.6",
           .summary = "probability that a token is accepted if those before it are",
           .min = 0,
           .max = 1},
          {.name = "length",
           .type = Type::kInt,
           .default_value = "4",
           .summary = "tokens of a draft",
           .min = 1,
           .max = DraftTree::kMaxNodes - 1}};
}

std::unique_ptr<DraftSource> forced_source(const Values& values, std::vector<int32_t> continuation,
                                           int64_t vocabulary) {
  if (vocabulary < 2) fail("forced drafts: expected a vocabulary of at least 2 tokens, found ", vocabulary);
  return std::make_unique<ForcedSource>(values.number("accept"), values.integer("length"), std::move(continuation),
                                        static_cast<int32_t>(vocabulary));
}

}  // namespace fathom
