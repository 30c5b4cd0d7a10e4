#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"

namespace fathom::eval {

using Record = Json;

/// The results of an evaluation as JSON lines: in memory, and in a file that a killed run finds again.
class RecordLog {
 public:
  /// No file: results are kept in memory only.
  RecordLog() = default;
  /// Opens or makes the file, reads the records of earlier runs, and cuts off a last line that was not finished.
  /// Throws Error if it cannot be read or written, holds something else (naming the line), or another run has it
  /// open.
  explicit RecordLog(const std::string& path);
  ~RecordLog();
  RecordLog(const RecordLog&) = delete;

  /// The record of this key, or null.
  const Record* find(const std::string& key) const;
  /// Adds a record at its key and writes its line. Throws Error if it cannot be written whole; the file then ends
  /// as before.
  void add(const std::string& key, Record record);
  /// Writes a summary's line, unless the file's last one of the same cell says the same.
  void add_summary(const Record& summary);
  /// What a record is found by.
  static std::string key(const Record& record);

 private:
  void read(const std::string& path);
  void write_line(const Record& record);

  std::string path_;
  int file_ = -1;
  std::map<std::string, Record> records_;
  std::map<std::string, std::string> summaries_;  // of a cell: the line
};

}  // namespace fathom::eval
