#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace fathom {

/// A whole file mapped read-only into memory; nothing is copied. Movable, unmapped when destroyed.
class FileMap {
 public:
  /// Throws Error if the file cannot be opened or mapped, or is not a regular file.
  explicit FileMap(const std::string& path);
  FileMap(FileMap&& other) noexcept;
  FileMap& operator=(FileMap&& other) noexcept;
  ~FileMap();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  /// The same bytes as characters, of any encoding.
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  void release();
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace fathom
