#include "decode/drafts/history.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/file_map.h"
#include "base/write_file.h"

namespace fathom {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic = "fthmhist";
constexpr uint32_t kVersion = 1;
constexpr uint64_t kMaxTokens = uint64_t{1} << 28;

struct Header {
  char magic[8];
  uint32_t version;
  int32_t vocabulary;
  uint64_t hash, count, checksum;
};
static_assert(sizeof(Header) == 40);

uint64_t hash_tokens(std::span<const int32_t> tokens) {
  return hash_content({reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes()});
}

/// An exclusive lock on the file with this path, which is created if it does not exist.
class FileLock {
 public:
  explicit FileLock(const std::string& path) {
    for (;;) {
      file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
      if (file_ < 0) fail(path, ": cannot open the draft history: ", std::strerror(errno));
      while (::flock(file_, LOCK_EX) != 0) {
        if (errno == EINTR) continue;
        const int error = errno;
        ::close(file_);
        fail(path, ": cannot lock the draft history: ", std::strerror(error));
      }
      // Another process may have replaced the file between open and flock.
      struct stat locked {
      }, current{};
      if (::fstat(file_, &locked) == 0 && ::stat(path.c_str(), &current) == 0 && locked.st_ino == current.st_ino &&
          locked.st_dev == current.st_dev)
        return;
      ::close(file_);
    }
  }
  FileLock(const FileLock&) = delete;
  ~FileLock() { ::close(file_); }

 private:
  int file_;
};

/// Throws Error if the path is neither free nor a regular file that can be read and written.
void check_file(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    fail(path, ": expected a draft history, found something that is not a regular file");
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) fail(path, ": cannot open the draft history for writing: ", std::strerror(errno));
  ::close(file);
}

/// Copies the tokens that follow the header. Returns the reason if the file is damaged, or an empty text.
std::string read_tokens(std::span<const std::byte> bytes, const Header& header, std::vector<int32_t>& tokens) {
  if (header.count > kMaxTokens) return concat("expected at most ", kMaxTokens, " tokens, found ", header.count);
  const size_t size = sizeof header + 4 * header.count;
  if (bytes.size() != size) return concat("expected ", size, " bytes, found ", bytes.size());
  tokens.resize(header.count);
  if (!tokens.empty()) std::memcpy(tokens.data(), bytes.data() + sizeof header, 4 * tokens.size());
  if (hash_tokens(tokens) != header.checksum) return "the checksum is wrong";
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < DraftHistory::kEnd || tokens[i] >= header.vocabulary)
      return concat("token ", i, ": expected an id below ", header.vocabulary, ", found ", tokens[i]);
  }
  return "";
}

}  // namespace

DraftHistory::DraftHistory(std::string path, int64_t limit, Key key)
    : path_(std::move(path)), limit_(std::min<size_t>(limit, kMaxTokens)), key_(key) {
  check_file(path_);
  tokens_ = read(damage_);
  if (tokens_.size() > limit_) tokens_.erase(tokens_.begin(), tokens_.end() - static_cast<ptrdiff_t>(limit_));
  build_index();
}

std::vector<int32_t> DraftHistory::read(std::string& damage) const {
  const FileMap file(path_);
  const std::span<const std::byte> bytes = file.bytes();
  if (bytes.empty()) return {};
  const std::string_view start = file.text().substr(0, kMagic.size());
  if (start != kMagic.substr(0, start.size()))
    fail(path_, ": expected a draft history or an empty file, found another file, which is not overwritten");
  if (bytes.size() < sizeof(Header)) {
    damage = "the header is incomplete";
    return {};
  }
  Header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.version != kVersion)
    fail(path_, ": expected a draft history of version ", kVersion, ", found version ", header.version);
  if (Key{header.vocabulary, header.hash} != key_) {
    fail(path_, ": the draft history was written with another vocabulary: expected ", key_.vocabulary,
         " tokens with hash ", key_.hash, ", found ", header.vocabulary, " with hash ", header.hash);
  }
  std::vector<int32_t> tokens;
  damage = read_tokens(bytes, header, tokens);
  if (!damage.empty()) return {};
  return tokens;
}

void DraftHistory::append(std::span<const int32_t> text) const {
  const FileLock lock(path_);
  std::string damage;
  std::vector<int32_t> tokens = read(damage);
  for (const int32_t token : text)
    if (token >= 0 && token < key_.vocabulary) tokens.push_back(token);
  if (!tokens.empty() && tokens.back() != kEnd) tokens.push_back(kEnd);
  if (tokens.size() > limit_) tokens.erase(tokens.begin(), tokens.end() - static_cast<ptrdiff_t>(limit_));
  Header header{{}, kVersion, key_.vocabulary, key_.hash, tokens.size(), hash_tokens(tokens)};
  std::memcpy(header.magic, kMagic.data(), kMagic.size());
  std::vector<std::byte> bytes(sizeof header + 4 * tokens.size());
  std::memcpy(bytes.data(), &header, sizeof header);
  if (!tokens.empty()) std::memcpy(bytes.data() + sizeof header, tokens.data(), 4 * tokens.size());
  write_file(path_, bytes);
}

void DraftHistory::build_index() {
  latest_.assign(std::bit_ceil(std::max<size_t>(64, tokens_.size())), 0);
  previous_.assign(tokens_.size() + 1, 0);
  for (size_t end = kGram; end <= tokens_.size(); ++end) {
    uint32_t& latest = latest_[bucket(tokens_.data() + end - kGram)];
    previous_[end] = latest;
    latest = static_cast<uint32_t>(end);
  }
}

size_t DraftHistory::bucket(const int32_t* gram) const {
  uint64_t h = 0;
  for (int i = 0; i < kGram; ++i) h = (h ^ static_cast<uint32_t>(gram[i])) * 0x9e3779b97f4a7c15u, h ^= h >> 29;
  return h & (latest_.size() - 1);
}

void DraftHistory::find(std::span<const int32_t> text, std::vector<Match>& matches) const {
  matches.clear();
  if (text.size() < kGram) return;
  uint32_t end = latest_[bucket(&text[text.size() - kGram])];
  int longest = kGram;
  for (int visited = 0; end > 0 && visited < kVisited; end = previous_[end], ++visited) {
    if (end == tokens_.size() || tokens_[end] == kEnd) continue;
    int length = 0;
    while (length < kLongest && length < end && length < text.size() &&
           tokens_[end - 1 - length] == text[text.size() - 1 - length])
      ++length;
    if (length > longest) {
      longest = length;
      matches.clear();
    }
    if (length == longest && matches.size() < kMatches) matches.push_back({end, length});
  }
}

}  // namespace fathom
