#include "program.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <new>
#include <string>

#include "base/error.h"
#include "base/interrupt.h"
#include "console.h"

namespace fathom {
namespace {

enum ExitCode { kGood = 0, kFailed = 1, kUsage = 2, kInterrupted = 130 };

ExitCode report(std::string text, ExitCode code) {
  std::ranges::replace(text, '\n', ' ');
  std::fprintf(stderr, "fathom: %s\n", text.c_str());
  return code;
}

ExitCode report(const Error& error) {
  switch (error.kind()) {
    case Error::Kind::kUsage:
      return report(error.what(), kUsage);
    case Error::Kind::kInterrupted:
      return report(error.what(), kInterrupted);
    case Error::Kind::kFailed:
    case Error::Kind::kOutOfMemory:
      break;
  }
  return report(error.what(), kFailed);
}

}  // namespace

int run_program(int argc, char** argv, const char* description, void (*add_commands)(Command program)) {
  std::signal(SIGPIPE, SIG_DFL);  // end without a message when the reader of stdout closes the pipe
  try {
    CommandLine command_line(description);
    add_commands(command_line.program());
    install_interrupt_handler();
    write_out(command_line.parse(argc, argv));
    finish_out();
    return kGood;
  } catch (const Error& error) {
    return report(error);
  } catch (const std::bad_alloc&) {
    return report("out of memory", kFailed);
  } catch (const std::exception& error) {
    return report(error.what(), kFailed);
  }
}

}  // namespace fathom
