#include "decode/allowed_tokens.h"

#include "base/error.h"

namespace fathom {

void AllowedTokens::restrict(Candidates& candidates) const {
  size_t kept = 0;
  for (const Candidate& candidate : candidates.all())
    if (contains(candidate.id)) candidates.all()[kept++] = candidate;
  if (kept == 0) fail("the constraint allows none of the ", candidates.size(), " candidates");
  candidates.keep_first(kept);
}

}  // namespace fathom
