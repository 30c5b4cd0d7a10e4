#pragma once

#include "kernels/pages.h"

namespace fathom {

/// Copies the key of one token as it lies, bits and all, to another page: rotated by the offset that it had.
void copy_key(PageFormat format, int key_dim, const std::byte* from, int from_token, std::byte* to, int to_token);
/// The same of its value.
void copy_value(PageFormat format, int value_dim, const std::byte* from, int from_token, std::byte* to,
                int to_token);

}  // namespace fathom
