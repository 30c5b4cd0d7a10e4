#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace fathom::train {

/// Reads a tar archive, plain or packed by gzip, zstd, xz or bzip2, from front to back with libarchive. What is
/// damaged or cut off is an Error that names the archive and the entry.
class TarReader {
 public:
  /// Throws Error if it cannot be opened or is no tar archive.
  explicit TarReader(std::string path);
  ~TarReader();
  TarReader(const TarReader&) = delete;

  /// Goes to the next entry; false at the end.
  bool next();
  /// Of the entry: its path as the archive has it.
  const std::string& name() const { return name_; }
  /// Whether the entry is a regular file.
  bool is_file() const;
  /// The whole entry; empty if it is over `limit` bytes.
  std::optional<std::string> read(int64_t limit);

 private:
  struct State;
  [[noreturn]] void fail_reading() const;

  std::string path_, name_;
  std::unique_ptr<State> state_;
};

}  // namespace fathom::train
