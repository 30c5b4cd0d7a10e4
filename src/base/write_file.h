#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace fathom {

/// Writes `bytes` to a temporary beside `path`, syncs it, and renames it to `path`. Throws Error if any step fails
/// (full disk, no permission); `path` is then as it was before and the temporary is gone. Devices and pipes are
/// written directly.
void write_file(const std::string& path, std::span<const std::byte> bytes);

/// Appends `text` whole to an open file. Throws Error naming `path` if that fails (full disk); what was written of
/// it is cut off again, but from a pipe.
void append_whole(int file, const std::string& path, std::string_view text);

}  // namespace fathom
