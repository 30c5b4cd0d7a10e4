#include "mixers/mixer.h"

namespace fathom {

int64_t step_rows(std::span<const SequenceRows> sequences) {
  int64_t rows = 0;
  for (const SequenceRows& s : sequences) {
    if (!s.draft && s.rows > kMatvecRows) break;
    rows += s.rows;
  }
  return rows;
}

}  // namespace fathom
