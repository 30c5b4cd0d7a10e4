#include "base/interrupt.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/error.h"

namespace fathom {

namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM};

std::atomic<bool> interrupt_flag{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

void handle_interrupt(int) {
  interrupt_flag.store(true, std::memory_order_relaxed);
  for (const int number : kSignals) std::signal(number, SIG_DFL);
}

}  // namespace

void install_interrupt_handler() {
  interrupt_flag.store(false, std::memory_order_relaxed);
  struct sigaction action {};
  action.sa_handler = handle_interrupt;
  action.sa_flags = SA_RESTART;  // reads and writes under way go on: only the flag stops work
  ::sigemptyset(&action.sa_mask);
  for (const int number : kSignals) {
    if (::sigaction(number, &action, nullptr) != 0) {
      fail("cannot handle signal ", number, ": ", std::strerror(errno));
    }
  }
}

bool interrupted() { return interrupt_flag.load(std::memory_order_relaxed); }

void throw_if_interrupted() {
  if (interrupted()) throw Error("interrupted", Error::Kind::kInterrupted);
}

}  // namespace fathom
