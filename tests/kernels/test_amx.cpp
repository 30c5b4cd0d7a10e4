#include <gtest/gtest.h>

#include <csignal>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "amx_emulator.h"
#include "kernels/amx.h"
#include "kernels/amx_tiles.h"
#include "kernels/quantize.h"
#include "seed.h"

namespace fathom::test {
namespace {

TEST(AmxTrial, FailsOnTrapsAndWrongResults) {
  EXPECT_TRUE(trial_succeeds([] { return true; }));
  EXPECT_FALSE(trial_succeeds([] { return false; }));
#if FATHOM_AMX
  EXPECT_FALSE(trial_succeeds([] {
    asm volatile("ud2");
    return true;
  }));
#endif
  EXPECT_FALSE(trial_succeeds([] {
    std::raise(SIGSEGV);
    return true;
  }));
}

TEST(AmxTrial, RestoresThePreviousHandlers) {
  const auto mine = +[](int) {};
  for (const int signal : {SIGILL, SIGSEGV}) {
    auto* const original = std::signal(signal, mine);
    trial_succeeds([] { return std::raise(SIGILL) == 0; });
    EXPECT_EQ(std::signal(signal, original), mine);
  }
}

TEST(AmxUsable, ReturnsTheSameEveryTime) { EXPECT_EQ(amx_usable(), amx_usable()); }

#if FATHOM_AMX

class AmxTiles : public testing::Test {
 protected:
  void SetUp() override {
    if (!AmxEmulator::possible()) GTEST_SKIP() << "this machine has neither AMX nor what its emulator needs";
  }

  /// [rows, cols] with random bytes.
  template <class T>
  std::vector<T> random_values(int rows, int cols) {
    std::vector<T> values(rows * cols);
    std::uniform_int_distribution<int> byte(0, 255);
    auto* bytes = reinterpret_cast<uint8_t*>(values.data());
    for (size_t i = 0; i < values.size() * sizeof(T); ++i) bytes[i] = static_cast<uint8_t>(byte(random_));
    return values;
  }
  std::vector<uint16_t> random_bf16(int rows, int cols) {
    std::normal_distribution<float> normal(0, 1);
    std::vector<uint16_t> values(rows * cols);
    for (uint16_t& v : values) v = f32_to_bf16(normal(random_));
    return values;
  }

  std::mt19937 random_{test::seed(7)};
  AmxEmulator emulator_;
};

/// Returns a configuration of tiles 0 (C), 1 (A) and 2 (B) for a product of [rows, 4·steps bytes] with [steps,
/// columns, 4 bytes].
TileConfig product_config(int rows, int steps, int columns) {
  TileConfig config;
  config.rows[0] = config.rows[1] = static_cast<uint8_t>(rows);
  config.rows[2] = static_cast<uint8_t>(steps);
  config.row_bytes[0] = config.row_bytes[2] = static_cast<uint16_t>(4 * columns);
  config.row_bytes[1] = static_cast<uint16_t>(4 * steps);
  return config;
}

const int kShapes[][3] = {{16, 16, 16}, {1, 1, 1}, {5, 3, 11}, {16, 2, 7}, {2, 16, 1}, {13, 8, 16}};

TEST_F(AmxTiles, TrialProductIsCorrect) { EXPECT_TRUE(amx_product_is_correct()); }

TEST_F(AmxTiles, PeakDoesAtLeastTheRequestedMultiplyAdds) {
  float sink = 0;
  for (const int64_t n : {1, 100000}) EXPECT_GE(amx_peak_bf16(n, &sink), n);
  EXPECT_EQ(sink, 0);
}

TEST_F(AmxTiles, StoreWritesWhatLoadRead) {
  for (const size_t stride : {64, 80, 200, 4096}) {
    const auto from = random_values<uint8_t>(kTileRows, static_cast<int>(stride));
    auto to = random_values<uint8_t>(kTileRows, static_cast<int>(stride));
    auto expected = to;
    for (int r = 0; r < kTileRows; ++r) std::memcpy(&expected[r * stride], &from[r * stride], kTileRowBytes);
    {
      const TileScope tiles;
      tile_load<3>(from.data(), stride);
      tile_store<3>(to.data(), stride);
    }
    EXPECT_EQ(to, expected) << "stride " << stride;
    {
      const TileScope tiles;
      tile_load_stream<7>(from.data(), stride);
      tile_store<7>(expected.data(), stride);
    }
    EXPECT_EQ(to, expected) << "stream, stride " << stride;
  }
}

TEST_F(AmxTiles, EachOfTheEightTilesHoldsItsOwnData) {
  const auto from = random_values<uint8_t>(8 * kTileRows, kTileRowBytes);
  std::vector<uint8_t> to(from.size());
  const auto each = [](const auto& f) {
    [&]<int... T>(std::integer_sequence<int, T...>) { (f.template operator()<T>(), ...); }
    (std::make_integer_sequence<int, kTiles>());
  };
  {
    const TileScope tiles;
    each([&]<int T>() { tile_load<T>(from.data() + T * kTileBytes, kTileRowBytes); });
    each([&]<int T>() { tile_store<T>(to.data() + T * kTileBytes, kTileRowBytes); });
  }
  EXPECT_EQ(to, from);
}

TEST_F(AmxTiles, ConfiguringAndZeroingClearTiles) {
  const auto from = random_values<uint8_t>(kTileRows, kTileRowBytes);
  const std::vector<uint8_t> zeros(kTileBytes);
  auto to = from;
  {
    const TileScope tiles;
    tile_load<0>(from.data(), kTileRowBytes);
    tile_load<6>(from.data(), kTileRowBytes);
    tile_zero<6>();
    tile_store<6>(to.data(), kTileRowBytes);
  }
  EXPECT_EQ(to, zeros);
  to = from;
  {
    const TileScope tiles;
    tile_store<0>(to.data(), kTileRowBytes);
  }
  EXPECT_EQ(to, zeros);
}

TEST_F(AmxTiles, SmallTilesMoveOnlyTheirRowsAndBytes) {
  for (const auto& [rows, steps, columns] : kShapes) {
    const auto from = random_values<uint8_t>(kTileRows, 96);
    auto to = random_values<uint8_t>(kTileRows, 96);
    auto expected = to;
    for (int r = 0; r < rows; ++r) std::memcpy(&expected[r * 96], &from[r * 96], 4 * steps);
    tile_configure(product_config(rows, steps, columns));
    tile_load<1>(from.data(), 96);
    tile_store<1>(to.data(), 96);
    tile_release();
    EXPECT_EQ(to, expected) << rows << " rows of " << 4 * steps << " bytes";
  }
}

TEST_F(AmxTiles, Bf16ProductEqualsPlainSums) {
  for (const auto& [rows, steps, columns] : kShapes) {
    const auto a = random_bf16(rows, 2 * steps), b = random_bf16(steps, 2 * columns);
    std::vector<float> c(rows * columns, 0.25f);
    tile_configure(product_config(rows, steps, columns));
    tile_load<0>(c.data(), 4 * columns);
    tile_load<1>(a.data(), 4 * steps);
    tile_load<2>(b.data(), 4 * columns);
    tile_dp_bf16<0, 1, 2>();
    tile_store<0>(c.data(), 4 * columns);
    tile_release();
    for (int m = 0; m < rows; ++m) {
      for (int n = 0; n < columns; ++n) {
        double sum = 0.25, size = 0.25;
        for (int k = 0; k < 2 * steps; ++k) {
          const double product =
              double{bf16_to_f32(a[m * 2 * steps + k])} * bf16_to_f32(b[(k / 2) * 2 * columns + 2 * n + k % 2]);
          sum += product;
          size += std::abs(product);
        }
        EXPECT_NEAR(c[m * columns + n], sum, 1e-6 * size) << m << ", " << n << " of " << rows << "×" << columns;
      }
    }
  }
}

TEST_F(AmxTiles, Bf16ProductTreatsDenormalsAsZero) {
  constexpr uint16_t kTiny = 0x1f80, kDenormal = 0x0040, kOne = 0x3f80;  // 2⁻⁶⁴, 2⁻¹²⁷, 1
  const struct {
    uint16_t a, b;
    float before, after;
  } kCases[] = {{kTiny, kTiny, 0, 0}, {kDenormal, kOne, 0, 0}, {0, kOne, 1e-40f, 0}, {kTiny, kOne, 0, 0x1p-64f}};
  for (const auto& [a, b, before, after] : kCases) {
    const uint16_t left[2] = {a, 0}, right[2] = {b, 0};
    float c = before;
    tile_configure(product_config(1, 1, 1));
    tile_load<0>(&c, 4);
    tile_load<1>(left, 4);
    tile_load<2>(right, 4);
    tile_dp_bf16<0, 1, 2>();
    tile_store<0>(&c, 4);
    tile_release();
    EXPECT_EQ(c, after) << bf16_to_f32(a) << " · " << bf16_to_f32(b) << " + " << before;
  }
}

/// Returns C + A·B of bytes, A as type `Left`; the sums wrap around.
template <class Left>
std::vector<int32_t> plain_bytes(std::vector<int32_t> c, const std::vector<uint8_t>& a,
                                 const std::vector<int8_t>& b, int rows, int steps, int columns) {
  for (int m = 0; m < rows; ++m) {
    for (int n = 0; n < columns; ++n) {
      uint32_t sum = static_cast<uint32_t>(c[m * columns + n]);
      for (int k = 0; k < 4 * steps; ++k) {
        const int left = static_cast<Left>(a[m * 4 * steps + k]);
        sum += static_cast<uint32_t>(left * b[(k / 4) * 4 * columns + 4 * n + k % 4]);
      }
      c[m * columns + n] = static_cast<int32_t>(sum);
    }
  }
  return c;
}

TEST_F(AmxTiles, ByteProductsEqualPlainSums) {
  for (const auto& [rows, steps, columns] : kShapes) {
    const auto a = random_values<uint8_t>(rows, 4 * steps);
    const auto b = random_values<int8_t>(steps, 4 * columns);
    const auto before = random_values<int32_t>(rows, columns);
    for (const bool is_signed : {false, true}) {
      auto c = before;
      tile_configure(product_config(rows, steps, columns));
      tile_load<0>(c.data(), 4 * columns);
      tile_load<1>(a.data(), 4 * steps);
      tile_load<2>(b.data(), 4 * columns);
      if (is_signed) {
        tile_dp_s8s8<0, 1, 2>();
      } else {
        tile_dp_u8s8<0, 1, 2>();
      }
      tile_store<0>(c.data(), 4 * columns);
      tile_release();
      const auto expected = is_signed ? plain_bytes<int8_t>(before, a, b, rows, steps, columns)
                                      : plain_bytes<uint8_t>(before, a, b, rows, steps, columns);
      EXPECT_EQ(c, expected) << rows << "×" << steps << "×" << columns << (is_signed ? " signed" : " unsigned");
    }
  }
}

TEST_F(AmxTiles, OperandsMayBeAnyTiles) {
  const auto a = random_values<uint8_t>(16, 64);
  const auto b = random_values<int8_t>(16, 64);
  std::vector<int32_t> c(256), expected = plain_bytes<uint8_t>(c, a, b, 16, 16, 16);
  {
    const TileScope tiles;
    tile_load<7>(a.data(), 64);
    tile_load<4>(b.data(), 64);
    tile_zero<5>();
    tile_dp_u8s8<5, 7, 4>();
    tile_store<5>(c.data(), 64);
  }
  EXPECT_EQ(c, expected);
  {
    const TileScope tiles;
    tile_load<2>(a.data(), 64);
    tile_load<6>(b.data(), 64);
    tile_dp_u8s8<3, 2, 6>();
    tile_store<3>(c.data(), 64);
  }
  EXPECT_EQ(c, expected);
}

// The address forms that the compiler may choose: every kind of base and index register, displacement and scale.
#define FATHOM_EXPECT_LOADS(base_register, index_register, operand, row, scale)                                 \
  {                                                                                                             \
    std::vector<uint8_t> to(kTileBytes), expected(kTileBytes);                                                  \
    const size_t stride = 48 * (scale);                                                                         \
    for (int r = 0; r < kTileRows; ++r) std::memcpy(&expected[r * 64], &from[(row) + r * stride], 64);          \
    const TileScope tiles;                                                                                      \
    asm volatile("mov %0, %%" base_register "\n\tmov %1, %%" index_register "\n\ttileloadd " operand ", %%tmm1" \
                 :                                                                                              \
                 : "a"(from.data() + 512), "d"(size_t{48})                                                      \
                 : base_register, index_register, "memory");                                                    \
    tile_store<1>(to.data(), 64);                                                                               \
    EXPECT_EQ(to, expected) << operand;                                                                         \
  }

TEST_F(AmxTiles, DecodesEveryFormOfAddress) {
  const auto from = random_values<uint8_t>(128, 128);
  FATHOM_EXPECT_LOADS("rbx", "rcx", "(%%rbx,%%rcx,1)", 512, 1)
  FATHOM_EXPECT_LOADS("rsi", "rdi", "8(%%rsi,%%rdi,2)", 520, 2)
  FATHOM_EXPECT_LOADS("rdi", "r8", "-16(%%rdi,%%r8,4)", 496, 4)
  FATHOM_EXPECT_LOADS("r9", "r10", "300(%%r9,%%r10,8)", 812, 8)
  FATHOM_EXPECT_LOADS("r11", "r12", "-300(%%r11,%%r12,1)", 212, 1)
  FATHOM_EXPECT_LOADS("r12", "r13", "(%%r12,%%r13,1)", 512, 1)
  FATHOM_EXPECT_LOADS("r13", "r14", "(%%r13,%%r14,2)", 512, 2)
  FATHOM_EXPECT_LOADS("r14", "r15", "64(%%r14,%%r15,4)", 576, 4)
  FATHOM_EXPECT_LOADS("r15", "rbx", "(%%r15,%%rbx,1)", 512, 1)
  FATHOM_EXPECT_LOADS("rbx", "rcx", "8(%%rbx)", 520, 0)
}

/// A chain of products whose result is correct only if the thread has its own tiles.
std::vector<int32_t> chain(const std::vector<uint8_t>& a, const std::vector<int8_t>& b, int rounds) {
  std::vector<int32_t> c(256);
  const TileScope tiles;
  tile_load<1>(a.data(), 64);
  tile_load<2>(b.data(), 64);
  for (int i = 0; i < rounds; ++i) {
    tile_dp_u8s8<0, 1, 2>();
    std::this_thread::yield();
  }
  tile_store<0>(c.data(), 64);
  return c;
}

TEST_F(AmxTiles, ThreadsHaveSeparateTiles) {
  constexpr int kRounds = 200;
  std::vector<int32_t> results[2], expected[2];
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    const auto a = random_values<uint8_t>(16, 64);
    const auto b = random_values<int8_t>(16, 64);
    expected[t].resize(256);
    for (int i = 0; i < kRounds; ++i) expected[t] = plain_bytes<uint8_t>(expected[t], a, b, 16, 16, 16);
    threads.emplace_back([&results, a, b, t] { results[t] = chain(a, b, kRounds); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(results[0], expected[0]);
  EXPECT_EQ(results[1], expected[1]);
}

using AmxEmulatorDeathTest = AmxTiles;

TEST_F(AmxEmulatorDeathTest, RejectsWhatTheProcessorRejects) {
  if (!AmxEmulator::needed()) GTEST_SKIP() << "this machine has AMX";
  const auto rejected = testing::KilledBySignal(SIGILL);
  EXPECT_EXIT(asm volatile("ud2"), rejected, "AmxEmulator");
  EXPECT_EXIT(tile_zero<0>(), rejected, "AmxEmulator") << "no configuration";
  EXPECT_EXIT(tile_configure(product_config(17, 4, 4)), rejected, "AmxEmulator") << "too many rows";
  const auto load_without_rows = [] {
    std::vector<uint8_t> memory(kTileBytes);
    tile_configure(product_config(4, 4, 4));
    tile_load<3>(memory.data(), 64);
  };
  EXPECT_EXIT(load_without_rows(), rejected, "AmxEmulator");
  const auto multiply_unmatched = [] {
    TileConfig config = product_config(4, 4, 4);
    config.rows[2] = 5;  // must equal the number of pairs of A, 4
    tile_configure(config);
    tile_dp_bf16<0, 1, 2>();
  };
  EXPECT_EXIT(multiply_unmatched(), rejected, "AmxEmulator");
}

#endif

}  // namespace
}  // namespace fathom::test
