#include "train/run_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "base/error.h"
#include "base/file_map.h"
#include "base/write_file.h"

namespace fathom::train {

std::vector<RunLog::Line> read_run_log(const std::string& path) {
  const FileMap file(path);
  const std::string_view text = file.text();
  std::vector<RunLog::Line> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string_view::npos) break;  // incomplete: the run was killed while writing it
    const RunLog::Line line = RunLog::Line::parse_or_null(text.substr(begin, end - begin));
    const Json* step = line.find("step");
    if (!step || !step->is_number_integer())
      fail(path, ":", lines.size() + 1,
           ": not a line of a training log: expected a JSON object with an integer step");
    lines.push_back(line);
    begin = end + 1;
  }
  return lines;
}

RunLog::RunLog(const std::string& path, int64_t step) : path_(path) {
  if (path.empty()) return;
  std::string kept;
  std::error_code error;
  if (std::filesystem::file_size(path, error) > 0 && !error) {
    for (Line& line : read_run_log(path)) {
      if (step == 0 || line["step"].get<int64_t>() > step) continue;
      kept += line.dump() + "\n";
      lines_.push_back(std::move(line));
    }
  }
  write_file(path, std::as_bytes(std::span(kept)));
  file_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (file_ < 0) fail(path, ": cannot open: ", std::strerror(errno));
}

RunLog::~RunLog() {
  if (file_ >= 0) ::close(file_);
}

void RunLog::add(Line line) {
  if (file_ >= 0) append_whole(file_, path_, line.dump() + "\n");
  lines_.push_back(std::move(line));
}

double RunLog::seconds() const {
  for (auto line = lines_.rbegin(); line != lines_.rend(); ++line) {
    if (line->contains("seconds")) return (*line)["seconds"].get<double>();
  }
  return 0;
}

}  // namespace fathom::train
