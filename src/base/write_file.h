#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace fathom {

/// Writes `bytes` to a new file, syncs it and lets it replace `path` (AtomicFile). Throws Error if a step fails
/// (full disk, no permission); `path` is then unchanged. Devices and pipes are written directly.
void write_file(const std::string& path, std::span<const std::byte> bytes);

/// Appends all of `text` to an open file. Throws Error naming `path` if that fails (full disk); a part that was
/// written is then truncated again, except in a pipe.
void append_whole(int file, const std::string& path, std::string_view text);

}  // namespace fathom
