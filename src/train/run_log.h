#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"

namespace fathom::train {

/// The log of a training run: JSON lines in memory and in a file that a continued run appends to.
class RunLog {
 public:
  using Line = Json;

  /// Continues the log after step `step`. Removes incomplete lines and lines of later steps (the run was killed
  /// before it wrote a checkpoint); at step 0 removes all lines. An empty path keeps the log in memory only. Throws
  /// Error if the file cannot be read or written, or a line is not a line of a log (the error contains its number).
  RunLog(const std::string& path, int64_t step);
  ~RunLog();
  RunLog(const RunLog&) = delete;

  /// Appends a line. Throws Error if it cannot be written completely.
  void add(Line line);
  const std::vector<Line>& lines() const { return lines_; }
  /// Returns the seconds of the run so far, earlier parts included: "seconds" of the last line that has it.
  double seconds() const;

 private:
  std::string path_;
  int file_ = -1;
  std::vector<Line> lines_;
};

/// Returns the lines of a log file. Throws Error as RunLog.
std::vector<RunLog::Line> read_run_log(const std::string& path);

}  // namespace fathom::train
