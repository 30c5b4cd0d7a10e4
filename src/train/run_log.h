#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"

namespace fathom::train {

/// What a training run has said so far: JSON lines, in memory and in a file that a continued run goes on with.
class RunLog {
 public:
  using Line = Json;

  /// Goes on after step `step`: lines of the file that are later (the run was killed before it kept a checkpoint of
  /// them) or not whole are dropped; at 0 all are. No path: in memory alone. Throws Error if the file cannot be
  /// read or written, or holds something else, naming the line.
  RunLog(const std::string& path, int64_t step);
  ~RunLog();
  RunLog(const RunLog&) = delete;

  /// Throws Error if the line cannot be written whole.
  void add(Line line);
  const std::vector<Line>& lines() const { return lines_; }
  /// Of the run so far, earlier parts of it included: as the last line with "seconds" says.
  double seconds() const;

 private:
  std::string path_;
  int file_ = -1;
  std::vector<Line> lines_;
};

/// The lines of a log that a run keeps or kept. Throws Error as RunLog.
std::vector<RunLog::Line> read_run_log(const std::string& path);

}  // namespace fathom::train
