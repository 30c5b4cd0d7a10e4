#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace fathom {

/// A whole file mapped read-only into memory, without a copy. Movable; the destructor unmaps it.
class FileMap {
 public:
  /// Throws Error if the file cannot be opened or mapped, or is not a regular file.
  explicit FileMap(const std::string& path);
  FileMap(FileMap&& other) noexcept;
  FileMap& operator=(FileMap&& other) noexcept;
  ~FileMap();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  /// Returns the memory of the bytes that were read to the system, which reads them again if they are needed.
  void release_memory() const;
  /// The bytes as characters; their encoding is not checked.
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  void release();
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace fathom
