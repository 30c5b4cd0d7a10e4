#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "session/engine.h"

namespace fathom {

/// The keys and values of slots that a model attends to as if they were tokens before a text: a prefix cache that
/// can be trained ("Cartridges: Lightweight and general-purpose long context representations via self-study",
/// 2025).
struct Cartridge {
  struct Layer {
    std::vector<float> keys;    // [kv_heads, slots, key_dim], unrotated, rotary pairs adjacent
    std::vector<float> values;  // [kv_heads, slots, value_dim]
  };
  std::string base{};  // general.name of the model
  int64_t slots = 0;
  int kv_heads = 0;
  std::vector<Layer> layers{};
};

/// Appends the slots to a sequence at its next positions, without a forward pass. A sequence can hold several
/// cartridges one after another. The ids of the slots are those of embeddings, −1. Throws Error, changing nothing,
/// if the numbers of layers, heads or dimensions are not those of the sequence, if it has recurrent layers, pages
/// without separate values or open tokens, or if memory is exhausted.
void append_cartridge(Sequence& sequence, Runtime& runtime, const Cartridge& cartridge);

/// Returns the cartridge as a GGUF file, in f32. Reading it gives the same bits.
GgufWriter to_gguf(const Cartridge& cartridge);
/// Reads such a file. Throws Error that names the file, the field or tensor, and what was expected.
Cartridge read_cartridge(const Gguf& file);

}  // namespace fathom
