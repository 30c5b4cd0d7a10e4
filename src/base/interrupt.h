#pragma once

namespace fathom {

/// Makes the first Ctrl-C (SIGINT) or SIGTERM set a flag that long work looks at; the next one ends the process at
/// once. Clears the flag, so that a later call arms it again. Throws Error if the system refuses.
void install_interrupt_handler();

/// Whether a signal has come since the handler was installed.
bool interrupted();

/// Throws Error of kind kInterrupted once a signal has come.
void throw_if_interrupted();

}  // namespace fathom
