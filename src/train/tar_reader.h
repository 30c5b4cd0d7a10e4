#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace fathom::train {

/// Reads a tar archive, plain or compressed by gzip, zstd, xz or bzip2, sequentially with libarchive. All functions
/// throw Error that names the archive and the entry if the archive is damaged or truncated.
class TarReader {
 public:
  /// Throws Error if the file cannot be opened or is not a tar archive.
  explicit TarReader(std::string path);
  ~TarReader();
  TarReader(const TarReader&) = delete;

  /// Moves to the next entry. Returns false at the end.
  bool next();
  /// Returns the path of the entry as stored in the archive.
  const std::string& name() const { return name_; }
  /// Returns whether the entry is a regular file.
  bool is_file() const;
  /// Returns the content of the entry, or nullopt if it has more than `limit` bytes.
  std::optional<std::string> read(int64_t limit);

 private:
  struct State;
  [[noreturn]] void fail_reading() const;

  std::string path_, name_;
  std::unique_ptr<State> state_;
};

}  // namespace fathom::train
