#pragma once

namespace fathom::test {

/// Runs AMX machine code on machines without AMX. While the object lives, tile instructions that trap are executed
/// in a handler of SIGILL, with tiles and a configuration per thread. Code that the processor would reject (an
/// unconfigured tile, shapes that do not match, an invalid configuration) ends the program with a message and
/// SIGILL. On machines with AMX no handler is installed, and the instructions run natively. One object at a time.
class AmxEmulator {
 public:
  AmxEmulator();
  ~AmxEmulator();
  AmxEmulator(const AmxEmulator&) = delete;

  /// Returns whether this machine needs the emulator: false if amx_usable().
  static bool needed();
  /// Returns whether AMX code can run here, emulated or not: Linux on x86-64, with AMX or FMA.
  static bool possible();
};

}  // namespace fathom::test
