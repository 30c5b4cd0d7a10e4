#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

namespace fathom {

/// A progress line on stderr for long work: done of total, rate and time left. It is rewritten at most ten times a
/// second and erased by the destructor. It is not shown if stderr is not a terminal (unless kAlways), nor for work
/// that ends within a second.
class Progress {
 public:
  enum class Show { kTerminal, kNever, kAlways };
  /// label: for example "reading"; unit: for example "tokens".
  Progress(std::string label, std::string unit, int64_t total, Show show = Show::kTerminal);
  ~Progress();
  Progress(const Progress&) = delete;
  /// Sets the amount of work done, and redraws the line if it is due.
  void update(int64_t done);
  /// Sets a text that is shown after the numbers, such as the current item.
  void set_note(std::string note) { note_ = std::move(note); }
  /// Subtracts work that is not needed after all.
  void reduce_total(int64_t by) { total_ -= by; }
  /// Returns the text of the line after `seconds` of work: "reading 12.3k/100k tokens  1.5k tokens/s  59 s left".
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
