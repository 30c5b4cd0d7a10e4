#include "base/write_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/atomic_file.h"
#include "base/error.h"

namespace fathom {
namespace {

/// An open file. The destructor closes it if an error occurred before close().
class OpenFile {
 public:
  OpenFile(int file, std::string path) : file_(file), path_(std::move(path)) {}
  OpenFile(const OpenFile&) = delete;
  ~OpenFile() {
    if (file_ >= 0) ::close(file_);
  }

  void write(std::span<const std::byte> bytes) {
    constexpr size_t kChunk = size_t{1} << 30;  // one write() transfers less than 2 GiB
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t count = ::write(file_, bytes.data() + done, std::min(kChunk, bytes.size() - done));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) {
        fail(path_, ": cannot write byte ", done, " of ", bytes.size(), ": ", std::strerror(errno));
      }
      done += static_cast<size_t>(count);
    }
  }

  /// Syncs the file. Ignores EINVAL and EROFS, which devices without support for it return.
  void sync() {
    if (::fsync(file_) != 0 && errno != EINVAL && errno != EROFS) {
      fail(path_, ": cannot sync: ", std::strerror(errno));
    }
  }

  void close() {
    const int closed = ::close(file_);
    file_ = -1;
    if (closed != 0 && errno != EINTR) fail(path_, ": cannot close: ", std::strerror(errno));
  }

 private:
  int file_;
  std::string path_;
};

void write_directly(const std::string& path, std::span<const std::byte> bytes) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (file < 0) fail(path, ": cannot open for writing: ", std::strerror(errno));
  OpenFile out(file, path);
  out.write(bytes);
  out.sync();
  out.close();
}

}  // namespace

void write_file(const std::string& path, std::span<const std::byte> bytes) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (std::filesystem::is_other(status)) return write_directly(path, bytes);
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void append_whole(int file, const std::string& path, std::string_view text) {
  const off_t before = ::lseek(file, 0, SEEK_END);  // −1 for a pipe
  for (size_t done = 0; done < text.size();) {
    const ssize_t count = ::write(file, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      const int error = errno;
      if (before < 0 || ::ftruncate(file, before) != 0)
        fail(path, ": a line was written only in part: ", std::strerror(error));
      fail(path, ": cannot append a line: ", std::strerror(error), "; earlier lines are kept");
    }
    done += static_cast<size_t>(count);
  }
}

}  // namespace fathom
