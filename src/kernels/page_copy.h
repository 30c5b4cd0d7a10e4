#pragma once

#include "kernels/pages.h"

namespace fathom {

/// Copies the stored bits of one token's key to another page. The key stays rotated by its offset in the old page.
void copy_key(PageFormat format, int key_dim, const std::byte* from, int from_token, std::byte* to, int to_token);
/// Copies the stored bits of one token's value to another page.
void copy_value(PageFormat format, int value_dim, const std::byte* from, int from_token, std::byte* to,
                int to_token);

}  // namespace fathom
