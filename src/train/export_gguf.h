#pragma once

#include <string>

#include "formats/gguf.h"
#include "train/net.h"

namespace fathom::train {

/// The net as a GGUF file that the engine reads. Matrices are rounded to `type` (where a row is no whole number of
/// its blocks: to q8_0, or f16), norms stay f32. tokenizer: its `tokenizer.*` metadata go along; null: none. Throws
/// Error when its vocabulary is not the net's.
GgufWriter to_gguf(const Net& net, WeightType type, const Gguf* tokenizer);

/// The shape of the llama in a file. Throws Error when it is none, or one that cannot be trained.
NetConfig read_net_config(const Gguf& file);

/// Sets the net's values to those of the file, of whatever weight types. Throws Error naming a tensor that is
/// missing, has another shape, or has no place in the net; values are then partly those of the file.
void import_gguf(const Gguf& file, Net& net);

}  // namespace fathom::train
