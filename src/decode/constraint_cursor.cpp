#include "decode/constraint_cursor.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace fathom {

ConstraintCursor::ConstraintCursor(std::shared_ptr<const Constraint> constraint, int64_t prompt)
    : constraint_(std::move(constraint)), prompt_(prompt) {
  states_.push_back(constraint_->start());
}

void ConstraintCursor::restrict(Candidates& candidates, std::span<const int32_t> history) {
  if (std::ssize(history) < prompt_)
    fail("a constraint that starts after ", prompt_, " tokens of prompt was given a history of ", history.size());
  const std::span<const int32_t> generated = history.subspan(static_cast<size_t>(prompt_));
  const auto common = static_cast<size_t>(std::ranges::mismatch(tokens_, generated).in1 - tokens_.begin());
  tokens_.resize(common);
  states_.resize(common + 1);
  for (const int32_t token : generated.subspan(common)) {
    auto next = states_.back()->fork();
    next->take(token);
    states_.push_back(std::move(next));
    tokens_.push_back(token);
  }
  states_.back()->restrict(candidates);
  if (candidates.max_logit() == -std::numeric_limits<float>::infinity())
    for (Candidate& candidate : candidates.all()) candidate.logit = 0;
}

}  // namespace fathom
