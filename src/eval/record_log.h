#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"

namespace fathom::eval {

using Record = Json;

/// Results of an evaluation as JSON lines, in memory and in a file from which an interrupted run continues.
class RecordLog {
 public:
  /// Keeps results in memory only.
  RecordLog() = default;
  /// Opens or creates the file, reads the records of earlier runs, and removes an unfinished last line. "-" is
  /// standard output. Throws Error if the file cannot be read or written, contains anything else (with the line),
  /// or is open in another run.
  explicit RecordLog(const std::string& path);
  ~RecordLog();
  RecordLog(const RecordLog&) = delete;

  /// Returns the record of this key, or null.
  const Record* find(const std::string& key) const;
  /// Adds a record under its key and writes its line. Throws Error if the line cannot be written completely; the
  /// file is then unchanged.
  void add(const std::string& key, Record record);
  /// Writes the line of a summary unless the last line of the same cell in the file is equal.
  void add_summary(const Record& summary);
  /// Returns the key of a record: its cell, sample number and prompt hash.
  static std::string key(const Record& record);

 private:
  void read(const std::string& path);
  void write_line(const Record& record);

  std::string path_;
  int file_ = -1;
  std::map<std::string, Record> records_;
  std::map<std::string, std::string> summaries_;  // line of the last summary of a cell
};

}  // namespace fathom::eval
