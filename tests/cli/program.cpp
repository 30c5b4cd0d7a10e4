#include "program.h"
#include "paths.h"
#include "seed.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <random>

extern char** environ;

namespace fathom::test {
namespace {

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> list;
  for (std::string& string : strings) list.push_back(string.data());
  list.push_back(nullptr);
  return list;
}

std::vector<std::string> environment_with(std::map<std::string, std::string> changes) {
  changes.try_emplace("FATHOM_MODEL", default_model());
  std::vector<std::string> all;
  for (char** entry = environ; *entry; ++entry) {
    const std::string_view text = *entry;
    if (!changes.contains(std::string(text.substr(0, text.find('='))))) all.emplace_back(text);
  }
  for (const auto& [name, value] : changes) {
    if (!value.empty()) all.push_back(name + "=" + value);
  }
  return all;
}

std::vector<std::string> words_of(const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {program_path()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  return words;
}

void close_end(int& end) {
  if (end >= 0) ::close(end);
  end = -1;
}

/// Appends the available bytes of a pipe. Closes it at its end.
void drain(int& end, std::string& text) {
  char block[65536];
  const ssize_t count = ::read(end, block, sizeof block);
  if (count > 0) {
    text.append(block, static_cast<size_t>(count));
  } else if (count == 0) {
    close_end(end);
  }
}

}  // namespace

Program::Program(const std::vector<std::string>& arguments, const std::map<std::string, std::string>& environment)
    : Program(Start{words_of(arguments), "", environment_with(environment)}) {}

Program::Program(Start start) {
  std::signal(SIGPIPE, SIG_IGN);
  int pipes[3][2];
  for (auto& pair : pipes) {
    if (::pipe2(pair, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipes[0][0], 0);
  posix_spawn_file_actions_adddup2(&actions, pipes[1][1], 1);
  posix_spawn_file_actions_adddup2(&actions, pipes[2][1], 2);
  if (!start.folder.empty()) posix_spawn_file_actions_addchdir_np(&actions, start.folder.c_str());
  const std::string program = start.words[0];
  const int failed = ::posix_spawn(&process_, program.c_str(), &actions, nullptr, pointers(start.words).data(),
                                   pointers(start.variables).data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed) throw std::runtime_error(program + ": " + std::strerror(failed));
  close_end(pipes[0][0]);
  close_end(pipes[1][1]);
  close_end(pipes[2][1]);
  in_ = pipes[0][1];
  out_ = pipes[1][0];
  err_ = pipes[2][0];
}

Program::~Program() {
  close_input();
  close_end(out_);
  close_end(err_);
  if (process_ > 0) {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
}

void Program::send(std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(in_, text.data(), text.size());
    if (count < 0) return;
    text.remove_prefix(static_cast<size_t>(count));
  }
}

void Program::close_input() { close_end(in_); }

bool Program::read_streams(int milliseconds) {
  pollfd streams[2] = {{out_, POLLIN, 0}, {err_, POLLIN, 0}};  // poll ignores closed ones (−1)
  if (::poll(streams, 2, milliseconds) <= 0) return false;
  if (streams[0].revents) drain(out_, result_.out);
  if (streams[1].revents) drain(err_, result_.err);
  return true;
}

void Program::wait_for_output() {
  while (result_.out.empty() && out_ >= 0 && read_streams(60000)) {
  }
}

void Program::kill(int signal) { ::kill(process_, signal); }

Result Program::finish(int seconds) {
  close_input();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (out_ >= 0 || err_ >= 0) {
    read_streams(100);
    if (std::chrono::steady_clock::now() > deadline) {
      ADD_FAILURE() << "still running after " << seconds << " s";
      kill(SIGKILL);
      break;
    }
  }
  int status = 0;
  rusage usage{};
  ::wait4(process_, &status, 0, &usage);
  process_ = -1;
  result_.peak_bytes = int64_t{1024} * usage.ru_maxrss;
  if (WIFEXITED(status)) result_.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result_.signal = WTERMSIG(status);
  return result_;
}

Result run(const std::vector<std::string>& arguments, std::string_view input,
           const std::map<std::string, std::string>& environment) {
  Program program(arguments, environment);
  program.send(input);
  return program.finish();
}

std::string output(const std::vector<std::string>& arguments, std::string_view input) {
  const Result result = run(arguments, input);
  EXPECT_EQ(result.code, 0) << result.err;
  return result.out;
}

Json json_output(const std::vector<std::string>& arguments, std::string_view input) {
  const std::string text = output(arguments, input);
  EXPECT_EQ(std::ranges::count(text, '\n'), 1) << "one object on one line: " << text;
  return Json::parse(text);
}

void expect_error(const Result& result, int code, const std::vector<std::string>& parts) {
  EXPECT_EQ(result.signal, 0);
  EXPECT_EQ(result.code, code);
  EXPECT_TRUE(result.err.starts_with("fathom: ")) << result.err;
  EXPECT_EQ(result.err.find('\n'), result.err.size() - 1) << result.err;
  for (const std::string& part : parts)
    EXPECT_NE(result.err.find(part), std::string::npos) << part << " in " << result.err;
}

std::string default_model() { return seedling_path(); }

Folder::Folder() {
  std::string name = (std::filesystem::temp_directory_path() / "fathom-test-XXXXXX").string();
  if (!::mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
  path_ = name;
}

Folder::~Folder() { std::filesystem::remove_all(path_); }

std::string Folder::write(const std::string& name, std::string_view bytes) const {
  std::ofstream(path_ / name, std::ios::binary) << bytes;
  return path(name);
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<float> read_floats(const std::string& path) {
  const std::string bytes = read_file(path);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

std::string prose(size_t bytes, uint32_t seed) {
  static const char* const kWords[] = {"the",  "sea",  "old",   "captain", "saw",  "a",    "white", "ship",
                                       "and",  "went", "below", "where",   "wind", "rose", "again", "slowly",
                                       "over", "all",  "its",   "sails",   "in",   "rain", "he",    "waited"};
  std::mt19937 random(test::seed(seed));
  std::string text;
  while (text.size() < bytes) {
    text += kWords[random() % std::size(kWords)];
    text += random() % 12 == 0 ? ".\n" : " ";
  }
  text.resize(bytes);
  return text;
}

}  // namespace fathom::test
