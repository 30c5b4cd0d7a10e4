#pragma once

#include <string>

#include "formats/gguf.h"
#include "train/net.h"

namespace fathom::train {

/// Returns a net or a draft source as a GGUF file that the engine reads. Matrices are rounded to `type`, or to q8_0
/// or f16 if their rows are not a multiple of its block; vectors stay f32. tokenizer: a file whose `tokenizer.*`
/// metadata are copied to a model; null: none. Throws Error if its vocabulary size differs from the net's.
GgufWriter to_gguf(const Trainable& net, WeightType type, const Gguf* tokenizer);

/// Returns the shape of the model in a file. Throws Error unless its architecture is llama and can be trained.
NetConfig read_net_config(const Gguf& file);

/// Sets the values to those of the file; all weight types are accepted. Throws Error that names a tensor
/// which is missing, has another shape, or is unknown to the net; some values may then already be those of the
/// file.
void import_gguf(const Gguf& file, Trainable& net);

}  // namespace fathom::train
