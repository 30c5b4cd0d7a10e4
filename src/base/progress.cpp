#include "base/progress.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <utility>

#include "base/error.h"
#include "base/format.h"

namespace fathom {

namespace {

constexpr std::chrono::milliseconds kRedrawInterval{100};  // faster updates are not readable
constexpr std::chrono::seconds kFirstDrawDelay{1};         // shorter work needs no line
constexpr const char* kEraseLine = "\r\x1b[K";             // go to the first column, clear to the end of the line

}  // namespace

Progress::Progress(std::string label, std::string unit, int64_t total, Show show)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      show_(show == Show::kAlways || (show == Show::kTerminal && ::isatty(STDERR_FILENO) == 1)),
      start_(std::chrono::steady_clock::now()),
      last_(start_) {}

Progress::~Progress() {
  if (shown_) std::fputs(kEraseLine, stderr);
}

void Progress::update(int64_t done) {
  if (!show_) return;
  const auto now = std::chrono::steady_clock::now();
  if (shown_ ? now - last_ < kRedrawInterval : now - start_ < kFirstDrawDelay) return;
  std::string text = line(label_, unit_, done, total_, std::chrono::duration<double>(now - start_).count());
  if (!note_.empty()) text += "  " + note_;
  std::fprintf(stderr, "%s%s", kEraseLine, text.c_str());
  std::fflush(stderr);
  shown_ = true;
  last_ = now;
}

std::string Progress::line(const std::string& label, const std::string& unit, int64_t done, int64_t total,
                           double seconds) {
  std::string text = concat(label, " ", format_size(done));
  if (total > 0) text += concat("/", format_size(total));
  text += concat(" ", unit);
  if (done <= 0 || seconds <= 0) return text;
  const double rate = static_cast<double>(done) / seconds;
  text += concat("  ", format_size(rate), " ", unit, "/s");
  if (done < total) text += concat("  ", format_seconds(std::ceil((total - done) / rate)), " left");
  return text;
}

}  // namespace fathom
