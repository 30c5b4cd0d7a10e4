#include "train/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/format.h"

namespace fathom::train {
namespace {

constexpr size_t kBlockBytes = size_t{1} << 20;

}  // namespace

struct TarReader::State {
  archive* reader = nullptr;
  archive_entry* entry = nullptr;
};

TarReader::TarReader(std::string path) : path_(std::move(path)), state_(std::make_unique<State>()) {
  state_->reader = archive_read_new();
  if (!state_->reader) fail(path_, ": out of memory for reading the archive");
  archive* reader = state_->reader;
  archive_read_support_filter_gzip(reader);
  archive_read_support_filter_zstd(reader);
  archive_read_support_filter_xz(reader);
  archive_read_support_filter_bzip2(reader);
  archive_read_support_format_tar(reader);
  if (archive_read_open_filename(reader, path_.c_str(), kBlockBytes) != ARCHIVE_OK) {
    const std::string what = archive_error_string(reader) ? archive_error_string(reader) : "unknown error";
    archive_read_free(reader);
    state_->reader = nullptr;
    fail(path_, ": cannot open as a tar archive (plain, .gz, .zst, .xz, .bz2): ", what);
  }
}

TarReader::~TarReader() {
  if (state_->reader) archive_read_free(state_->reader);
}

void TarReader::fail_reading() const {
  const char* what = archive_error_string(state_->reader);
  fail(path_, ": the archive is damaged, truncated or not a tar archive, ",
       name_.empty() ? "before its first entry" : "at or after entry " + quote(name_), ": ",
       what ? what : "unknown error");
}

bool TarReader::next() {
  const int result = archive_read_next_header(state_->reader, &state_->entry);
  if (result == ARCHIVE_EOF) return false;
  if (result != ARCHIVE_OK && result != ARCHIVE_WARN) fail_reading();
  const char* name = archive_entry_pathname_utf8(state_->entry);
  if (!name) name = archive_entry_pathname(state_->entry);
  name_ = name ? name : "without a name";
  return true;
}

bool TarReader::is_file() const { return archive_entry_filetype(state_->entry) == AE_IFREG; }

std::optional<std::string> TarReader::read(int64_t limit) {
  std::string bytes;
  const auto max_bytes = static_cast<size_t>(limit);
  for (;;) {
    const size_t size = bytes.size(), requested = std::min(kBlockBytes, max_bytes - size + 1);
    bytes.resize(size + requested);
    const la_ssize_t count = archive_read_data(state_->reader, bytes.data() + size, requested);
    if (count < 0) fail_reading();
    bytes.resize(size + static_cast<size_t>(count));
    if (count == 0) return bytes;
    if (bytes.size() > max_bytes) return std::nullopt;
  }
}

}  // namespace fathom::train
