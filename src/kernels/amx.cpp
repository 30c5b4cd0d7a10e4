#include "kernels/amx.h"

#include "kernels/amx_tiles.h"

#include <csetjmp>
#include <csignal>
#include <mutex>

#if FATHOM_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fathom {
namespace {

thread_local sigjmp_buf* trial_escape = nullptr;  // set while this thread runs a trial

constexpr int kTrapSignals[] = {SIGILL, SIGSEGV};

/// Catches the trap signals while the object lives.
class TrapHandlers {
 public:
  TrapHandlers() {
    struct sigaction action {};
    action.sa_handler = leave;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < 2; ++i) sigaction(kTrapSignals[i], &action, &previous_[i]);
  }
  ~TrapHandlers() {
    for (int i = 0; i < 2; ++i) sigaction(kTrapSignals[i], &previous_[i], nullptr);
  }
  TrapHandlers(const TrapHandlers&) = delete;

 private:
  static void leave(int signal) {
    if (trial_escape) siglongjmp(*trial_escape, 1);
    std::signal(signal, SIG_DFL);  // a fault of another thread: the instruction faults again and ends the process
  }
  struct sigaction previous_[2]{};
};

#if FATHOM_AMX
bool processor_has_amx() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE)) return false;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
  return (edx & kBf16) && (edx & kTile) && (edx & kInt8);
}

/// Returns whether the operating system saves the configuration and data of tiles when it switches threads.
bool system_saves_tiles() {
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kTileStates = 3u << 17;
  return (low & kTileStates) == kTileStates;
}

/// Linux grants the large tile state only to processes that request it.
bool permitted() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool detect_amx() {
  return processor_has_amx() && system_saves_tiles() && permitted() && trial_succeeds(amx_product_is_correct);
}
#else
bool detect_amx() { return false; }
#endif

}  // namespace

bool trial_succeeds(bool (*trial)()) {
  static std::mutex mutex;  // signal handlers belong to the whole process
  const std::lock_guard lock(mutex);
  const TrapHandlers handlers;
  sigjmp_buf escape;
  volatile bool succeeded = false;
  if (sigsetjmp(escape, 1) == 0) {
    trial_escape = &escape;
    succeeded = trial();
  }
  trial_escape = nullptr;
  return succeeded;
}

#if FATHOM_AMX
FATHOM_AMX_TARGET bool amx_product_is_correct() {
  alignas(64) uint16_t a[kTileRows][32], b[kTileRows][32];
  alignas(64) float c[kTileRows][16] = {};
  constexpr uint16_t kOne = 0x3f80, kTwo = 0x4000;
  for (int r = 0; r < kTileRows; ++r) {
    for (int i = 0; i < 32; ++i) {
      a[r][i] = i <= r ? kOne : 0;         // row r: r + 1 ones
      b[r][i] = i / 2 == 3 ? kTwo : kOne;  // column 3 is doubled
    }
  }
  {
    const TileScope tiles;
    tile_zero<0>();
    tile_load<1>(a, sizeof(a[0]));
    tile_load<2>(b, sizeof(b[0]));
    tile_dp_bf16<0, 1, 2>();
    tile_store<0>(c, sizeof(c[0]));
  }
  for (int r = 0; r < kTileRows; ++r) {
    for (int n = 0; n < 16; ++n) {
      if (c[r][n] != static_cast<float>((r + 1) * (n == 3 ? 2 : 1))) return false;
    }
  }
  return true;
}
#else
bool amx_product_is_correct() { return false; }
#endif

bool amx_usable() {
  static const bool usable = detect_amx();
  return usable;
}

}  // namespace fathom
