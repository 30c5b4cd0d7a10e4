#pragma once

namespace fathom::test {

/// Runs AMX machine quant on machines without AMX: while the object lives, tile instructions that trap are carried
/// out in the handler of SIGILL, with tiles and configuration of each thread's own. What the processor would refuse
/// (an unconfigured tile, shapes that do not match, a bad configuration) ends the program with a message, as
/// SIGILL. Where the machine has AMX nothing is installed, and the instructions run as they are. One object at a
/// time.
class AmxEmulator {
 public:
  AmxEmulator();
  ~AmxEmulator();
  AmxEmulator(const AmxEmulator&) = delete;

  /// Whether this machine needs it: false where amx_usable().
  static bool needed();
  /// Whether AMX quant can run here at all, emulated or not: Linux on x86-64.
  static bool possible();
};

}  // namespace fathom::test
