#pragma once

#include "formats/gguf.h"
#include "tokens/vocabulary.h"

namespace fathom::train {

/// Puts the vocabulary's metadata ("tokenizer.ggml.…") into the file: Vocabulary::read gives it back. Throws Error
/// for a vocabulary that contradicts itself, or has what a file cannot say (normalisation rules).
void write_vocabulary(GgufWriter& writer, const Vocabulary& vocabulary);

}  // namespace fathom::train
