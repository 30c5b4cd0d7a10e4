#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

namespace fathom {

/// One line on stderr for long work: done of total, rate, time left; rewritten in place at most ten times a second.
/// Silent when stderr is no terminal (unless `always`), and for work that is over within a second. Erased when
/// destroyed.
class Progress {
 public:
  enum class Show { kTerminal, kNever, kAlways };
  /// label: "reading"; unit: "tokens".
  Progress(std::string label, std::string unit, int64_t total, Show show = Show::kTerminal);
  ~Progress();
  Progress(const Progress&) = delete;
  void update(int64_t done);
  /// What the work is at now, put behind the numbers.
  void set_note(std::string note) { note_ = std::move(note); }
  /// Work that was found not to be needed.
  void reduce_total(int64_t by) { total_ -= by; }
  /// The text of the line for a state of affairs: "reading 12.3k/100k tokens  1.5k tokens/s  59 s left".
  static std::string line(const std::string& label, const std::string& unit, int64_t done, int64_t total,
                          double seconds);

 private:
  std::string label_, unit_, note_;
  int64_t total_;
  bool show_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

}  // namespace fathom
