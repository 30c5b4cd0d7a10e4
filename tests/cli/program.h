#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace fathom {

/// For messages of failed expectations.
inline void PrintTo(const Json& json, std::ostream* out) { *out << json.dump(); }

}  // namespace fathom

namespace fathom::test {

/// The result of a program.
struct Result {
  int code = -1;   // exit code, or −1
  int signal = 0;  // the signal that ended it; 0: none
  std::string out, err;
  int64_t peak_bytes = 0;  // peak resident memory
};

/// A program to start: its words, its working folder (empty: the current one) and all its environment variables as
/// NAME=VALUE.
struct Start {
  std::vector<std::string> words;
  std::string folder;
  std::vector<std::string> variables;
};

/// The built program, running, with its three streams in pipes. FATHOM_MODEL is the default model unless
/// `environment` says otherwise (empty value: not set).
class Program {
 public:
  explicit Program(const std::vector<std::string>& arguments,
                   const std::map<std::string, std::string>& environment = {});
  explicit Program(Start start);
  ~Program();
  Program(const Program&) = delete;

  /// Writes to stdin. A program that does not read it is not a failure.
  void send(std::string_view text);
  void close_input();
  /// Waits for output on stdout.
  void wait_for_output();
  void kill(int signal);
  /// Closes stdin and waits for the program to end. Kills it after `seconds`, which is a test failure.
  Result finish(int seconds = 60);

 private:
  bool read_streams(int milliseconds);
  pid_t process_ = -1;
  int in_ = -1, out_ = -1, err_ = -1;
  Result result_;
};

/// Runs the program to its end.
Result run(const std::vector<std::string>& arguments, std::string_view input = {},
           const std::map<std::string, std::string>& environment = {});

/// Runs the program, expects success and returns its stdout.
std::string output(const std::vector<std::string>& arguments, std::string_view input = {});
/// Returns the same as one JSON object.
Json json_output(const std::vector<std::string>& arguments, std::string_view input = {});

/// Expects that the run failed with this exit code and one line on stderr, "fathom: …", which contains all `parts`.
void expect_error(const Result& result, int code, const std::vector<std::string>& parts);

std::string default_model();

/// A temporary folder, removed by the destructor.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  /// Writes a file and returns its path.
  std::string write(const std::string& name, std::string_view bytes) const;
  std::string path(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

std::string read_file(const std::string& path);
std::vector<float> read_floats(const std::string& path);

/// Returns sentences from a small vocabulary; the same seed gives the same text on every machine.
std::string prose(size_t bytes, uint32_t seed);

}  // namespace fathom::test
