#include "console.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/interrupt.h"

namespace fathom {

void write_out(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    fail("standard output: cannot write: ", std::strerror(errno));
  }
}

void finish_out() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    fail("standard output: cannot write: ", std::strerror(errno));
}

void note(std::string_view text) {
  std::fprintf(stderr, "fathom: %.*s\n", static_cast<int>(text.size()), text.data());
}

bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) == 1; }

namespace {

struct OpenInput {
  int file;
  ~OpenInput() {
    if (file != STDIN_FILENO) ::close(file);
  }
};

}  // namespace

std::string input_name(const std::string& path) { return path == "-" ? "standard input" : path; }

std::string read_input(const std::string& path) {
  const std::string name = input_name(path);
  const OpenInput input{path == "-" ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (input.file < 0) fail(name, ": cannot open: ", std::strerror(errno));
  std::string bytes;
  std::vector<char> block(size_t{1} << 20);
  for (;;) {
    throw_if_interrupted();
    const ssize_t count = ::read(input.file, block.data(), block.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(name, ": cannot read: ", std::strerror(errno));
    if (count == 0) return bytes;
    bytes.append(block.data(), static_cast<size_t>(count));
  }
}

}  // namespace fathom
