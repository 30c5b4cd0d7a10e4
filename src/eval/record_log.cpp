#include "eval/record_log.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/file_map.h"
#include "base/format.h"
#include "base/write_file.h"
#include "eval/json_lines.h"

namespace fathom::eval {
namespace {

/// Returns the key of the cell (model, task, length, method, seed) of a record or summary.
std::string cell_of(const Record& summary) {
  std::string cell;
  for (const char* field : {"model_id", "task", "length", "method", "seed"})
    cell += summary.value(field, Record()).dump() + "|";
  return cell;
}

std::string line_of(const Record& record) { return record.dump() + "\n"; }

/// Returns whether `end`, the end of a file after its last newline, may be the beginning of an unfinished line.
bool unfinished(std::string_view end) {
  for (const std::string_view start : {std::string_view("{\"task\":"), std::string_view("{\"summary\":")}) {
    if (end.starts_with(start.substr(0, end.size()))) return true;
  }
  return false;
}

}  // namespace

std::string RecordLog::key(const Record& record) {
  std::string key = cell_of(record);
  for (const char* field : {"sample", "prompt_hash"}) key += record.value(field, Record()).dump() + "|";
  return key;
}

RecordLog::RecordLog(const std::string& path) : path_(path) {
  if (path == "-") {
    file_ = ::dup(STDOUT_FILENO);
    if (file_ < 0) fail("standard output cannot be written: ", std::strerror(errno));
    return;
  }
  file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file_ < 0) fail(path, ": cannot be opened for writing: ", std::strerror(errno));
  try {
    if (::flock(file_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
      fail(path, ": another evaluation is writing to this file; wait for it or give another file");
    read(path);
  } catch (...) {
    ::close(file_);
    throw;
  }
}

RecordLog::~RecordLog() {
  if (file_ >= 0) ::close(file_);
}

void RecordLog::read(const std::string& path) {
  if (!std::filesystem::is_regular_file(path))
    fail(path, ": not a regular file; results can only be appended to a regular file");
  size_t whole = 0, size = 0;
  {
    const FileMap file(path);
    const std::string_view text = file.text();
    size = text.size();
    whole = text.rfind('\n') == std::string_view::npos ? 0 : text.rfind('\n') + 1;
    if (!unfinished(text.substr(whole)))
      fail(path, ": the last line is not a result of an evaluation; give another file");
    parse_json_lines(path, text.substr(0, whole), [&](int64_t line, const Record& record) {
      if (!record.contains("task") || !record.contains("method"))
        fail(path, ": line ", line,
             ": not a result of an evaluation (no \"task\" and \"method\"); give another file");
      if (record.contains("summary")) {
        summaries_[cell_of(record)] = line_of(record);
      } else {
        records_[key(record)] = record;
      }
    });
  }
  if (whole < size && ::ftruncate(file_, static_cast<off_t>(whole)) != 0)
    fail(path, ": the unfinished last line cannot be removed: ", std::strerror(errno));
}

const Record* RecordLog::find(const std::string& key) const {
  const auto found = records_.find(key);
  return found == records_.end() ? nullptr : &found->second;
}

void RecordLog::add(const std::string& key, Record record) {
  write_line(record);
  records_[key] = std::move(record);
}

void RecordLog::add_summary(const Record& summary) {
  std::string& known = summaries_[cell_of(summary)];
  std::string line = line_of(summary);
  if (known == line) return;
  write_line(summary);
  known = std::move(line);
}

void RecordLog::write_line(const Record& record) {
  if (file_ >= 0) append_whole(file_, path_, line_of(record));
}

}  // namespace fathom::eval
