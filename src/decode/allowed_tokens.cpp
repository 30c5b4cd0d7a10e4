#include "decode/allowed_tokens.h"

#include "base/error.h"

namespace fathom {

void AllowedTokens::restrict(Candidates& candidates) const {
  const size_t before = candidates.size();
  if (!candidates.keep_ids(words_)) fail("the constraint allows none of the ", before, " candidates");
}

}  // namespace fathom
