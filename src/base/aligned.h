#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>

namespace fathom {

/// Alignment of numeric buffers in bytes: one cache line, and one of the widest vector registers.
inline constexpr size_t kAlignment = 64;

/// Returns kAlignment-aligned memory, backed by huge pages when large. Free it with std::free. Returns null for
/// 0 bytes. Throws std::bad_alloc.
void* allocate_aligned(size_t bytes);

/// A fixed-size array of trivially copyable T, aligned to kAlignment. Its contents are uninitialised.
template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size) : data_(static_cast<T*>(allocate_aligned(size * sizeof(T)))), size_(size) {}
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }
  std::span<T> span() { return {data(), size_}; }
  std::span<const T> span() const { return {data(), size_}; }
  /// Grows to at least `size` elements. Growing discards the contents.
  void reserve(size_t size) {
    if (size > size_) *this = AlignedBuffer(size);
  }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

}  // namespace fathom
