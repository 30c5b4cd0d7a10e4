#pragma once

#include "formats/gguf.h"
#include "tokens/vocabulary.h"

namespace fathom::train {

/// Adds the vocabulary's metadata ("tokenizer.ggml.…") to the file; Vocabulary::read inverts it. Throws Error for a
/// contradictory vocabulary and for one with normalisation rules, which are not supported.
void write_vocabulary(GgufWriter& writer, const Vocabulary& vocabulary);

}  // namespace fathom::train
