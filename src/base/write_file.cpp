#include "base/write_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <utility>

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

  void set_mode(mode_t mode) {
    if (::fchmod(file_, mode) != 0) fail(path_, ": cannot set permissions: ", std::strerror(errno));
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

/// A temporary file; the destructor removes it unless it was renamed.
struct TemporaryFile {
  std::string path;
  bool kept = false;
  ~TemporaryFile() {
    if (!kept) ::unlink(path.c_str());
  }
};

/// Creates a file with an unused name in the folder of `target` and sets `name`. Throws Error that names `path`.
int create_temporary(const std::string& target, const std::string& path, std::string& name) {
  static std::atomic<uint32_t> counter{0};
  constexpr int kTries = 100;  // killed processes with the same id may have left files with these names
  for (int i = 0; i < kTries; ++i) {
    name = concat(target, ".", ::getpid(), "-", counter++, ".tmp");
    const int file = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file >= 0) return file;
    if (errno != EEXIST) break;
  }
  fail(path, ": cannot create a temporary file in its folder: ", std::strerror(errno));
}

void sync_folder(const std::filesystem::path& folder) {
  const int file = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return;  // a folder that is writable but not readable cannot be synced
  OpenFile(file, folder.string()).sync();
}

}  // namespace

void write_file(const std::string& path, std::span<const std::byte> bytes) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (std::filesystem::is_directory(status)) fail(path, ": cannot write: is a folder");
  if (std::filesystem::is_other(status)) return write_directly(path, bytes);

  // The target of a link is replaced, not the link.
  std::filesystem::path target = std::filesystem::weakly_canonical(path, error);
  if (error) target = path;
  std::string name;
  OpenFile out(create_temporary(target.string(), path, name), path);
  TemporaryFile temporary{name};
  struct stat before {};
  if (::stat(target.c_str(), &before) == 0) out.set_mode(before.st_mode & 0777);
  out.write(bytes);
  out.sync();
  out.close();
  if (::rename(temporary.path.c_str(), target.c_str()) != 0) {
    fail(path, ": cannot rename ", name, " to it: ", std::strerror(errno));
  }
  temporary.kept = true;
  sync_folder(target.parent_path());
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
