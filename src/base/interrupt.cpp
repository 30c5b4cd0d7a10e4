#include "base/interrupt.h"

#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/error.h"

namespace fathom {

namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM};

StopToken signal_token;

void handle_interrupt(int) {
  signal_token.request_stop();
  for (const int number : kSignals) std::signal(number, SIG_DFL);
}

}  // namespace

void install_interrupt_handler() {
  signal_token.reset();
  struct sigaction action {};
  action.sa_handler = handle_interrupt;
  action.sa_flags = SA_RESTART;  // restart interrupted reads and writes; only the token stops an operation
  ::sigemptyset(&action.sa_mask);
  for (const int number : kSignals) {
    if (::sigaction(number, &action, nullptr) != 0) {
      fail("cannot handle signal ", number, ": ", std::strerror(errno));
    }
  }
}

const StopToken& interrupt_token() { return signal_token; }

}  // namespace fathom
