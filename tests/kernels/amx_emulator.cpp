#include "amx_emulator.h"

#include "kernels/amx.h"
#include "kernels/amx_tiles.h"

#if FATHOM_AMX
#include <immintrin.h>
#include <ucontext.h>
#include <unistd.h>

#include <bit>
#include <csignal>
#include <cstring>
#endif

namespace fathom::test {

#if FATHOM_AMX
namespace {

using Tile = uint8_t[kTileRows][kTileRowBytes];

struct TileState {
  bool configured = false;
  TileConfig config;
  alignas(64) Tile tiles[kTiles];
};
thread_local TileState state;
struct sigaction previous_action;

/// A VEX-encoded instruction of the opcode map 0F38, with the fields that AMX uses.
struct Instruction {
  enum Prefix { kNone = 0, k66 = 1, kF3 = 2, kF2 = 3 };
  int prefix = 0, opcode = 0;
  bool has_memory = false, has_sib = false;
  int reg = 0, rm = 0, vvvv = 0;  // operands of register forms
  uint64_t base = 0, stride = 0;  // memory: address without the index, and the index, scaled
  int length = 0;
};

uint64_t register_value(const ucontext_t& context, int number) {
  static constexpr int kOrder[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                     REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return static_cast<uint64_t>(context.uc_mcontext.gregs[kOrder[number]]);
}

template <class T>
T read(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

/// Decodes the memory operand that begins with the ModRM byte at `code[at]`; sets base, stride, has_sib and length.
void decode_memory(const ucontext_t& context, const uint8_t* code, int at, bool x, bool b, Instruction& out) {
  const int mod = code[at] >> 6, rm = code[at] & 7;
  ++at;
  bool relative = false, no_base = false;
  int base = rm | (b << 3);
  if (rm == 4) {
    out.has_sib = true;
    const uint8_t sib = code[at++];
    const int index = ((sib >> 3) & 7) | (x << 3);
    if (index != 4) out.stride = register_value(context, index) << (sib >> 6);
    base = (sib & 7) | (b << 3);
    no_base = mod == 0 && (sib & 7) == 5;
  } else {
    relative = mod == 0 && rm == 5;
  }
  int64_t displacement = 0;
  if (mod == 1) {
    displacement = static_cast<int8_t>(code[at]);
    at += 1;
  } else if (mod == 2 || no_base || relative) {
    displacement = read<int32_t>(code + at);
    at += 4;
  }
  out.length = at;
  const uint64_t start = relative  ? reinterpret_cast<uint64_t>(code) + out.length
                         : no_base ? 0
                                   : register_value(context, base);
  out.base = start + displacement;
}

/// Returns false if this is not a VEX instruction of map 0F38 with W0 and L0.
bool decode(const ucontext_t& context, const uint8_t* code, Instruction& out) {
  if (code[0] != 0xc4) return false;
  const bool r = !(code[1] & 0x80), x = !(code[1] & 0x40), b = !(code[1] & 0x20);
  if ((code[1] & 0x1f) != 2 || (code[2] & 0x84) != 0) return false;
  out.vvvv = ~(code[2] >> 3) & 15;
  out.prefix = code[2] & 3;
  out.opcode = code[3];
  const uint8_t modrm = code[4];
  out.reg = ((modrm >> 3) & 7) | (r << 3);
  out.rm = (modrm & 7) | (b << 3);
  out.length = 5;
  out.has_memory = modrm >> 6 != 3;
  if (out.has_memory) decode_memory(context, code, 4, x, b, out);
  return true;
}

bool configured(int tile) { return state.configured && tile < kTiles && state.config.rows[tile] > 0; }

bool load_config(const void* from) {
  TileConfig config;
  std::memcpy(&config, from, sizeof(config));
  if (config.palette == 0) {
    state = TileState{};
    return true;
  }
  bool valid = config.palette == 1 && config.start_row == 0;
  for (const uint8_t byte : config.reserved_low) valid &= byte == 0;
  for (int t = 0; t < 16; ++t) {
    valid &= config.rows[t] <= (t < kTiles ? kTileRows : 0);
    valid &= config.row_bytes[t] <= (t < kTiles ? kTileRowBytes : 0);
    valid &= (config.rows[t] == 0) == (config.row_bytes[t] == 0);
  }
  if (!valid) return false;
  state = TileState{};
  state.configured = true;
  state.config = config;
  return true;
}

void store_config(void* to) {
  TileConfig config{};
  if (state.configured) {
    config = state.config;
  } else {
    config.palette = 0;
  }
  std::memcpy(to, &config, sizeof(config));
}

bool load_tile(const Instruction& in) {
  if (!configured(in.reg)) return false;
  Tile& tile = state.tiles[in.reg];
  std::memset(tile, 0, sizeof(tile));
  for (int r = 0; r < state.config.rows[in.reg]; ++r) {
    std::memcpy(tile[r], reinterpret_cast<const void*>(in.base + r * in.stride), state.config.row_bytes[in.reg]);
  }
  return true;
}

bool store_tile(const Instruction& in) {
  if (!configured(in.reg)) return false;
  for (int r = 0; r < state.config.rows[in.reg]; ++r) {
    std::memcpy(reinterpret_cast<void*>(in.base + r * in.stride), state.tiles[in.reg][r],
                state.config.row_bytes[in.reg]);
  }
  return true;
}

float widen(uint16_t bf16) { return std::bit_cast<float>(uint32_t{bf16} << 16); }

/// Multiplies one row of C. Even and odd products are summed separately with fused multiply-adds, then added
/// together, then to C (Intel's manual, TDPBF16PS). Not inlined, so that the compiler moves no operation before or
/// after the caller's change of the control word.
__attribute__((noinline, target("avx2,fma"))) void multiply_row_bf16(uint8_t* c, const uint8_t* a, const Tile& b,
                                                                     int steps, int columns) {
  float even[16] = {}, odd[16] = {}, sums[16];
  for (int k = 0; k < steps; ++k) {
    uint16_t pair[2], pairs[32];
    std::memcpy(pair, a + 4 * k, sizeof(pair));
    std::memcpy(pairs, b[k], sizeof(pairs));
    const float a0 = widen(pair[0]), a1 = widen(pair[1]);
    for (int n = 0; n < columns; ++n) {
      even[n] = __builtin_fmaf(a0, widen(pairs[2 * n]), even[n]);
      odd[n] = __builtin_fmaf(a1, widen(pairs[2 * n + 1]), odd[n]);
    }
  }
  std::memcpy(sums, c, sizeof(sums));
  for (int n = 0; n < columns; ++n) sums[n] += even[n] + odd[n];
  std::memcpy(c, sums, sizeof(sums));
}

/// Rounds to nearest even, with denormal operands and results as zero, regardless of this thread's settings.
void multiply_bf16(Tile& c, const Tile& a, const Tile& b, int rows, int steps, int columns) {
  constexpr unsigned kAllMasked = 0x1f80, kFlushToZero = 0x8000, kDenormalsAreZero = 0x40;
  const unsigned control = _mm_getcsr();
  _mm_setcsr(kAllMasked | kFlushToZero | kDenormalsAreZero);
  for (int m = 0; m < rows; ++m) multiply_row_bf16(c[m], a[m], b, steps, columns);
  _mm_setcsr(control);
}

template <class A, class B>
void multiply_bytes(Tile& c, const Tile& a, const Tile& b, int rows, int steps, int columns) {
  for (int m = 0; m < rows; ++m) {
    uint32_t sums[16];
    std::memcpy(sums, c[m], sizeof(sums));
    for (int k = 0; k < steps; ++k) {
      for (int n = 0; n < columns; ++n) {
        for (int i = 0; i < 4; ++i) {
          sums[n] += static_cast<uint32_t>(static_cast<A>(a[m][4 * k + i]) * static_cast<B>(b[k][4 * n + i]));
        }
      }
    }
    std::memcpy(c[m], sums, sizeof(sums));
  }
}

using TileMultiply = void (*)(Tile& c, const Tile& a, const Tile& b, int rows, int steps, int columns);

/// Checks the operands' shapes, multiplies, and zeroes the part of tile C outside its shape.
bool dot(const Instruction& in, TileMultiply multiply) {
  const int c = in.reg, a = in.rm, b = in.vvvv;
  if (!configured(c) || !configured(a) || !configured(b) || c == a || c == b || a == b) return false;
  const TileConfig& config = state.config;
  const int rows = config.rows[c], row_bytes = config.row_bytes[c], steps = config.row_bytes[a] / 4;
  if (config.rows[a] != rows || config.row_bytes[b] != row_bytes || config.rows[b] != steps) return false;
  if (row_bytes % 4 || config.row_bytes[a] % 4) return false;
  Tile result;
  std::memcpy(result, state.tiles[c], sizeof(result));
  multiply(result, state.tiles[a], state.tiles[b], rows, steps, row_bytes / 4);
  std::memset(state.tiles[c], 0, sizeof(Tile));
  for (int r = 0; r < rows; ++r) std::memcpy(state.tiles[c][r], result[r], row_bytes);
  return true;
}

bool release(const Instruction& in) {
  if (in.reg != 0 || in.rm != 0) return false;
  state = TileState{};
  return true;
}

bool zero(const Instruction& in) {
  if (in.rm != 0 || !configured(in.reg)) return false;
  std::memset(state.tiles[in.reg], 0, sizeof(Tile));
  return true;
}

bool execute_configuration(const Instruction& in) {  // opcode 49
  if (in.vvvv != 0) return false;
  if (!in.has_memory) {
    return in.prefix == Instruction::kNone ? release(in) : in.prefix == Instruction::kF2 && zero(in);
  }
  if (in.reg != 0) return false;
  if (in.prefix == Instruction::kNone) return load_config(reinterpret_cast<const void*>(in.base + in.stride));
  if (in.prefix == Instruction::k66) {
    store_config(reinterpret_cast<void*>(in.base + in.stride));
    return true;
  }
  return false;
}

bool execute_move(const Instruction& in) {  // opcode 4B
  if (!in.has_memory || !in.has_sib || in.vvvv != 0) return false;
  if (in.prefix == Instruction::kF2 || in.prefix == Instruction::k66) return load_tile(in);
  return in.prefix == Instruction::kF3 && store_tile(in);
}

bool execute_bytes(const Instruction& in) {  // opcode 5E
  static constexpr TileMultiply kByPrefix[] = {multiply_bytes<uint8_t, uint8_t>, multiply_bytes<uint8_t, int8_t>,
                                               multiply_bytes<int8_t, uint8_t>, multiply_bytes<int8_t, int8_t>};
  return !in.has_memory && dot(in, kByPrefix[in.prefix]);
}

/// Returns false if this is not an AMX instruction, or one that the processor would reject.
bool execute(const Instruction& in) {
  switch (in.opcode) {
    case 0x49:
      return execute_configuration(in);
    case 0x4b:
      return execute_move(in);
    case 0x5c:
      return !in.has_memory && in.prefix == Instruction::kF3 && dot(in, multiply_bf16);
    case 0x5e:
      return execute_bytes(in);
    default:
      return false;
  }
}

void report(const char* text) { (void)!::write(STDERR_FILENO, text, std::strlen(text)); }

void on_illegal(int /*signal*/, siginfo_t* /*info*/, void* raw_context) {
  auto& context = *static_cast<ucontext_t*>(raw_context);
  auto& next = context.uc_mcontext.gregs[REG_RIP];
  Instruction instruction;
  if (decode(context, reinterpret_cast<const uint8_t*>(next), instruction) && execute(instruction)) {
    next += instruction.length;
    return;
  }
  report("AmxEmulator: not an instruction of AMX, or one with operands that the processor would reject\n");
  sigaction(SIGILL, &previous_action, nullptr);  // it traps again, with the previous action
}

}  // namespace

AmxEmulator::AmxEmulator() {
  if (!needed()) return;
  struct sigaction action {};
  action.sa_sigaction = on_illegal;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  sigaction(SIGILL, &action, &previous_action);
}

AmxEmulator::~AmxEmulator() {
  if (needed()) sigaction(SIGILL, &previous_action, nullptr);
}

bool AmxEmulator::needed() { return possible() && !amx_usable(); }
bool AmxEmulator::possible() { return amx_usable() || __builtin_cpu_supports("fma"); }

#else

AmxEmulator::AmxEmulator() = default;
AmxEmulator::~AmxEmulator() = default;
bool AmxEmulator::needed() { return false; }
bool AmxEmulator::possible() { return false; }

#endif

}  // namespace fathom::test
