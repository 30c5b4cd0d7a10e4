#include "base/checksum.h"

#define XXH_INLINE_ALL  // a header only, so that programs need no shared library
#include <xxhash.h>

namespace fathom {

struct Checksum::State {
  XXH3_state_t xxh3;
};

uint64_t checksum(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

Checksum::Checksum() : state_(std::make_unique<State>()) { XXH3_64bits_reset(&state_->xxh3); }
Checksum::~Checksum() = default;

void Checksum::add(std::span<const std::byte> bytes) {
  XXH3_64bits_update(&state_->xxh3, bytes.data(), bytes.size());
}

uint64_t Checksum::value() const { return XXH3_64bits_digest(&state_->xxh3); }

}  // namespace fathom
