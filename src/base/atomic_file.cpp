#include "base/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <utility>

#include "base/error.h"

namespace fathom {
namespace {

/// A temporary file of this age that no process holds a lock on was left by a killed process.
constexpr time_t kAbandonedSeconds = 60;

/// Syncs a file or folder. Ignores errors of file systems without support for it.
void sync_file(int file, const std::string& path) {
  if (::fsync(file) != 0 && errno != EINVAL && errno != EROFS) fail(path, ": cannot sync: ", std::strerror(errno));
}

/// Returns a name in the folder of `target` for a temporary file.
std::string temporary_name(const std::string& target) {
  static std::atomic<uint32_t> counter{0};
  return concat(target, ".", ::getpid(), "-", counter++, ".tmp");
}

/// Removes the file if it is old and no process holds a lock on it.
void remove_if_abandoned(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (file < 0) return;
  struct stat status {};
  const bool abandoned = ::fstat(file, &status) == 0 && S_ISREG(status.st_mode) &&
                         status.st_mtime + kAbandonedSeconds < ::time(nullptr) &&
                         ::flock(file, LOCK_EX | LOCK_NB) == 0;
  if (abandoned) ::unlink(path.c_str());
  ::close(file);
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : path_(path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (std::filesystem::is_directory(status)) fail(path, ": cannot write: is a folder");
  if (std::filesystem::is_other(status)) fail(path, ": cannot write: is not a regular file");
  const std::filesystem::path canonical = std::filesystem::weakly_canonical(path, error);
  target_ = error ? path : canonical.string();
  remove_temporaries();
  const std::filesystem::path folder = std::filesystem::path(target_).parent_path();
  file_ = ::open(folder.empty() ? "." : folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
  if (file_ < 0) create_named();
  struct stat before {};
  if (::stat(target_.c_str(), &before) == 0 && ::fchmod(file_, before.st_mode & 0777) != 0) {
    const int code = errno;
    discard();
    fail(path_, ": cannot set permissions: ", std::strerror(code));
  }
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() noexcept {
  if (file_ >= 0) ::close(std::exchange(file_, -1));
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

/// Creates a temporary file with a name, for file systems without files that have none.
void AtomicFile::create_named() {
  constexpr int kTries = 100;  // other processes with the same id may have left files with these names
  for (int i = 0; i < kTries; ++i) {
    temporary_ = temporary_name(target_);
    file_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file_ >= 0) break;
    if (errno == EEXIST) continue;
    temporary_.clear();
    fail(path_, ": cannot create a temporary file in its folder: ", std::strerror(errno));
  }
  ::flock(file_, LOCK_EX);  // for remove_if_abandoned
}

/// Removes the temporary files that killed processes left for this path.
void AtomicFile::remove_temporaries() {
  const std::filesystem::path target(target_);
  const std::string prefix = target.filename().string() + ".";
  std::error_code error;
  std::filesystem::directory_iterator files(target.has_parent_path() ? target.parent_path() : ".", error);
  for (; !error && files != std::filesystem::directory_iterator(); files.increment(error)) {
    const std::string name = files->path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(".tmp")) remove_if_abandoned(files->path().string());
  }
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write_at(size_, bytes);
  size_ += bytes.size();
}

void AtomicFile::align(uint64_t alignment) {
  static constexpr std::array<std::byte, 4096> kZeros{};
  for (uint64_t left = (alignment - size_ % alignment) % alignment; left > 0;) {
    const auto some = std::min<uint64_t>(left, kZeros.size());
    write(std::span(kZeros).first(some));
    left -= some;
  }
}

void AtomicFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  constexpr size_t kChunk = size_t{1} << 30;  // one pwrite() transfers less than 2 GiB
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t count = ::pwrite(file_, bytes.data() + done, std::min(kChunk, bytes.size() - done),
                                   static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path_, ": cannot write byte ", offset + done, ": ", std::strerror(errno));
    done += static_cast<size_t>(count);
  }
}

/// Gives the file, which has no name yet, this name. Returns false, with errno EEXIST, if the name is in use.
/// Throws Error if it cannot be given.
bool AtomicFile::name_file(const std::string& name) const {
  const std::string from = concat("/proc/self/fd/", file_);
  if (::linkat(AT_FDCWD, from.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0) return true;
  if (errno != EEXIST) fail(path_, ": cannot create ", name, ": ", std::strerror(errno));
  return false;
}

void AtomicFile::commit(bool sync) {
  if (sync) sync_file(file_, path_);
  if (temporary_.empty() && !name_file(target_)) {  // an existing file is replaced
    const std::string name = temporary_name(target_);
    if (!name_file(name)) fail(path_, ": cannot create ", name, ": ", std::strerror(errno));
    temporary_ = name;
  }
  if (!temporary_.empty() && ::rename(temporary_.c_str(), target_.c_str()) != 0)
    fail(path_, ": cannot rename ", temporary_, " to it: ", std::strerror(errno));
  temporary_.clear();
  const int closed = ::close(std::exchange(file_, -1));
  if (closed != 0 && errno != EINTR) fail(path_, ": cannot close: ", std::strerror(errno));
  if (!sync) return;
  const std::filesystem::path folder = std::filesystem::path(target_).parent_path();
  const int file = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return;  // a folder that is writable but not readable cannot be synced
  ::fsync(file);
  ::close(file);
}

}  // namespace fathom
