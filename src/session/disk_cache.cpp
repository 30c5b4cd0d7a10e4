#include "session/disk_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "base/error.h"
#include "base/format.h"
#include "memory/prefix_index.h"
#include "session/context_image.h"

namespace fathom {
namespace {

constexpr const char* kBlockSuffix = ".block";

/// Marks blocks as used now, the last ones first, so that a block is never older than those that follow it. The
/// time is that of the precise clock: the file system's own advances only every few milliseconds.
void mark_used(std::span<const std::string> paths) {
  for (size_t i = paths.size(); i-- > 0;) {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    const timespec times[] = {now, now};
    // Only the owner may choose a time; others that may write set the present one.
    if (::utimensat(AT_FDCWD, paths[i].c_str(), times, 0) != 0) ::utimensat(AT_FDCWD, paths[i].c_str(), nullptr, 0);
  }
}

/// Returns whether tokens [begin, end) can be stored: in whole pages, with the recurrent states after them.
bool can_store(const Sequence& sequence, int64_t begin, int64_t end) {
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    const RecurrentState* state = sequence.recurrent(layer);
    if (state && state->floor(end) != end) return false;
  }
  return is_complete_block(sequence, begin, end);
}

/// Locks the folder for deletions. Empty if another process holds the lock or there is no permission.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder)
      : file_(::open((folder + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
    held_ = file_ >= 0 && ::flock(file_, LOCK_EX | LOCK_NB) == 0;
  }
  FolderLock(const FolderLock&) = delete;
  ~FolderLock() {
    if (file_ >= 0) ::close(file_);
  }
  bool held() const { return held_; }

 private:
  int file_;
  bool held_ = false;
};

}  // namespace

DiskCache::DiskCache(std::string folder, int64_t quota) : folder_(std::move(folder)), quota_(quota) {}

std::string DiskCache::default_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value ? value : "");
  };
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty()) return cache + "/fathom";
  if (const std::string home = variable("HOME"); !home.empty()) return home + "/.cache/fathom";
  fail("no folder for the disk cache: set the environment variable XDG_CACHE_HOME");
}

std::string DiskCache::path_of(uint64_t fingerprint, uint64_t key) const {
  return concat(folder_, "/", format_hex(fingerprint), "/", format_hex(key), kBlockSuffix);
}

int64_t DiskCache::restore(Sequence& sequence, std::span<const int32_t> tokens, uint64_t fingerprint,
                           uint64_t space, int64_t block) {
  std::vector<std::string> paths;
  uint64_t key = space;
  for (int64_t begin = 0; begin + block < std::ssize(tokens); begin += block) {
    const auto ids = tokens.subspan(begin, block);
    key = block_key(key, ids);
    const std::string path = path_of(fingerprint, key);
    if (::access(path.c_str(), F_OK) != 0) break;
    try {
      const auto file = std::make_shared<const ContextFile>(path);
      if (!std::ranges::equal(file->tokens(), ids) || file->info().fingerprint != fingerprint ||
          file->info().rotary != rotary_sums(sequence) || std::ssize(file->info().layers) != sequence.layers())
        break;  // another block with the same hash
      file->verify();
      append_tokens(file, sequence);
    } catch (const Error& error) {
      if (error.kind() == Error::Kind::kOutOfMemory) throw;
      ::unlink(path.c_str());  // damaged, or of another version
      break;
    }
    paths.push_back(path);
  }
  mark_used(paths);
  return std::ssize(paths) * block;
}

void DiskCache::store(const Sequence& sequence, uint64_t space, int64_t block, const ContextInfo& info) {
  std::vector<std::string> paths;
  uint64_t key = space;
  bool wrote = false;
  for (int64_t begin = 0; begin + block <= sequence.tokens() && writable_; begin += block) {
    const std::vector<int32_t> ids = sequence.ids().copy(begin, begin + block);
    key = block_key(key, ids);
    paths.push_back(path_of(info.fingerprint, key));
    if (::access(paths.back().c_str(), F_OK) == 0) continue;
    if (!can_store(sequence, begin, begin + block)) break;
    try {
      std::filesystem::create_directories(std::filesystem::path(paths.back()).parent_path());
      ContextInfo own = info;
      ContextWriter writer(paths.back());
      write_tokens(writer, sequence, begin, begin + block, own, WrittenStates::kLast);
      writer.finish(own, false);
      wrote = true;
    } catch (const std::exception& error) {
      writable_ = false;
      std::fputs(concat("fathom: the disk cache is not written: ", error.what(), "\n").c_str(), stderr);
    }
  }
  if (!wrote) return;
  mark_used(paths);
  keep_quota();
}

void DiskCache::keep_quota() {
  try {
    prune(folder_, quota_);
  } catch (const Error&) {
    // another process is deleting blocks or files of the folder cannot be read: the next block tries again
  }
}

std::vector<DiskCache::Block> DiskCache::list(const std::string& folder) {
  std::vector<std::pair<timespec, Block>> found;
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator files(folder, error), end; !error && files != end;
       files.increment(error)) {
    const std::string path = files->path().string();
    struct stat status {};
    if (!path.ends_with(kBlockSuffix) || ::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    found.push_back({status.st_mtim, {path, status.st_size, status.st_mtim.tv_sec}});
  }
  if (error && error != std::errc::no_such_file_or_directory) fail(folder, ": cannot read: ", error.message());
  std::ranges::sort(found, {}, [](const auto& item) {
    return std::tuple(item.first.tv_sec, item.first.tv_nsec, item.second.path);
  });
  std::vector<Block> blocks;
  for (auto& item : found) blocks.push_back(std::move(item.second));
  return blocks;
}

std::vector<DiskCache::Block> DiskCache::prune(const std::string& folder, int64_t quota) {
  std::vector<Block> blocks = list(folder);
  int64_t bytes = 0;
  for (const Block& block : blocks) bytes += block.bytes;
  if (bytes <= quota) return {};
  const FolderLock lock(folder);
  if (!lock.held()) return {};
  std::vector<Block> deleted;
  for (const Block& block : blocks) {
    if (bytes <= quota) break;
    if (::unlink(block.path.c_str()) != 0) continue;
    bytes -= block.bytes;
    deleted.push_back(block);
  }
  return deleted;
}

}  // namespace fathom
