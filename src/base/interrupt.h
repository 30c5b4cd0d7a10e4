#pragma once

#include "base/stop_token.h"

namespace fathom {

/// Makes the first Ctrl-C (SIGINT) or SIGTERM request a stop of the process's token; the next one ends the process
/// at once. Resets the token, so that a later call arms it again. Throws Error if the system refuses.
void install_interrupt_handler();

/// The token that signals request a stop of: for programs, which hand it to the work that they start.
const StopToken& interrupt_token();

/// Whether a signal has come since the handler was installed.
inline bool interrupted() { return interrupt_token().stop_requested(); }

/// Throws Error of kind kInterrupted once a signal has come.
inline void throw_if_interrupted() { interrupt_token().throw_if_requested(); }

}  // namespace fathom
