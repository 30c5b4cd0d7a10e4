#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace fathom {

/// Writes `bytes` to a temporary beside `path`, syncs it, and renames it to `path`. Throws Error if any step fails
/// (full disk, no permission); `path` is then as it was before and the temporary is gone. Devices and pipes are
/// written directly.
void write_file(const std::string& path, std::span<const std::byte> bytes);

}  // namespace fathom
