#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace fathom {

/// A file that appears under its name complete or not at all: it is written without a name, where the file system
/// allows that (O_TMPFILE), else under a temporary name, and then linked or renamed to `path`. The destructor
/// discards it unless it was committed, and the temporary file of a killed process is removed by the next
/// AtomicFile of the same path. All functions throw Error naming the path.
class AtomicFile {
 public:
  /// Opens the file in the folder of `path`, which may be a link to a file. Throws Error if `path` is a folder, a
  /// device or a pipe, and if the folder cannot be written to.
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;

  /// Appends bytes.
  void write(std::span<const std::byte> bytes);
  /// Appends zeros up to a multiple of `alignment`.
  void align(uint64_t alignment);
  /// Overwrites bytes that were written before.
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  uint64_t size() const { return size_; }

  /// Replaces the file `path`. sync: waits until the file is on the disk, so that it also survives a power failure.
  void commit(bool sync = true);

 private:
  void create_named();
  bool name_file(const std::string& name) const;
  void remove_temporaries();
  void discard() noexcept;

  std::string path_, target_;  // target: of the link `path`, or path itself
  std::string temporary_;      // name of the file before commit; empty: none
  int file_ = -1;
  uint64_t size_ = 0;
};

/// Throws Error naming the path if no file can be written there.
inline void check_writable(const std::string& path) { const AtomicFile file(path); }

}  // namespace fathom
