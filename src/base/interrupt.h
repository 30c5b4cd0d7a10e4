#pragma once

#include "base/stop_token.h"

namespace fathom {

/// Installs a handler of Ctrl-C (SIGINT) and SIGTERM. The first signal requests a stop on interrupt_token(); the
/// next one ends the process at once. Resets the token, so that another call rearms the handler. Throws Error if
/// the system refuses.
void install_interrupt_handler();

/// Returns the token on which a signal requests a stop. Programs pass it to long operations.
const StopToken& interrupt_token();

/// Returns whether a signal has arrived since the handler was installed.
inline bool interrupted() { return interrupt_token().stop_requested(); }

/// Throws Error of kind kInterrupted if a signal has arrived.
inline void throw_if_interrupted() { interrupt_token().throw_if_requested(); }

}  // namespace fathom
