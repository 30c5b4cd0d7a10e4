#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "base/error.h"
#include "position/rotary.h"
#include "seed.h"

namespace fathom {
namespace {

RotaryConfig config(int dims, double base = 10000) {
  RotaryConfig c;
  c.dims = dims;
  c.base = base;
  return c;
}

/// Expects the rotation by `position`, whose angles are computed in double.
void expect_rotation(const Rotary& rotary, double position, const PositionRotations::View& view) {
  for (int i = 0; i < rotary.pairs(); ++i) {
    const double angle = position * rotary.frequencies()[i];
    ASSERT_NEAR(view.cos[i], std::cos(angle), 1e-6) << "position " << position << " pair " << i;
    ASSERT_NEAR(view.sin[i], std::sin(angle), 1e-6) << "position " << position << " pair " << i;
  }
}

using RotaryPairs = std::vector<double>;  // [2 · pairs], rotary pairs adjacent

RotaryPairs rotate(const RotaryPairs& x, const PositionRotations::View& by) {
  RotaryPairs y(x.size());
  for (size_t i = 0; i < x.size() / 2; ++i) {
    y[2 * i] = x[2 * i] * by.cos[i] - x[2 * i + 1] * by.sin[i];
    y[2 * i + 1] = x[2 * i] * by.sin[i] + x[2 * i + 1] * by.cos[i];
  }
  return y;
}

double dot(const RotaryPairs& a, const RotaryPairs& b) {
  double total = 0;
  for (size_t i = 0; i < a.size(); ++i) total += a[i] * b[i];
  return total;
}

TEST(PositionRotations, AreAccurateUpToPositionTwoMillion) {
  const Rotary rotary(config(128), 4096);
  PositionRotations rotations(rotary);
  rotations.reserve(2'000'000);
  std::vector<float> spare(rotary.dims());
  for (const int64_t position :
       {0, 1, 63, 64, 65, 127, 128, 4095, 4096, 65'537, 999'936, 999'999, 1'000'000, 1'999'999, 2'000'000}) {
    expect_rotation(rotary, static_cast<double>(position), rotations.at(position, spare.data()));
  }
  std::mt19937 random(test::seed(1));
  for (int n = 0; n < 2000; ++n) {
    const int64_t position = random() % 2'000'001;
    expect_rotation(rotary, static_cast<double>(position), rotations.at(position, spare.data()));
  }
}

TEST(PositionRotations, OffsetRotationsEqualThoseOfSmallPositions) {
  const Rotary rotary(config(32, 500000), 4096);
  const PositionRotations rotations(rotary);
  for (int o = 0; o < 64; ++o) expect_rotation(rotary, o, rotations.offset(o));
}

TEST(PositionRotations, InverseMayOverwriteTheSinOfItsRotation) {
  const Rotary rotary(config(32, 500000), 4096);
  PositionRotations rotations(rotary);
  rotations.reserve(5000);
  std::vector<float> spare(32), separate(16);
  for (const int64_t position : {0, 64, 65, 4999}) {
    const PositionRotations::View rotation = rotations.at(position, spare.data());
    expect_rotation(rotary, static_cast<double>(-position), rotations.inverse(rotation, separate.data()));
    expect_rotation(rotary, static_cast<double>(position), rotation);
    expect_rotation(rotary, static_cast<double>(-position), rotations.inverse(rotation, spare.data() + 16));
  }
  expect_rotation(rotary, -7, rotations.inverse(rotations.offset(7), separate.data()));
}

TEST(PositionRotations, GrowingKeepsEarlierRotationsAndNeverShrinks) {
  const Rotary rotary(config(64), 4096);
  PositionRotations rotations(rotary);
  std::vector<float> spare(rotary.dims());
  const auto take = [&](int64_t position) {
    const PositionRotations::View view = rotations.at(position, spare.data());
    std::vector<float> all(view.cos, view.cos + rotary.pairs());
    all.insert(all.end(), view.sin, view.sin + rotary.pairs());
    return all;
  };
  rotations.reserve(0);
  rotations.reserve(200);
  const std::vector<float> at_64 = take(64), at_199 = take(199);
  rotations.reserve(100'000);
  EXPECT_EQ(take(64), at_64);
  EXPECT_EQ(take(199), at_199);
  rotations.reserve(10);
  expect_rotation(rotary, 100'000, rotations.at(100'000, spare.data()));
}

TEST(PositionRotations, ModelsWithoutRotaryPositionsReserveNothing) {
  const Rotary rotary(RotaryConfig{}, 4096);
  PositionRotations rotations(rotary);
  rotations.reserve(int64_t{1} << 40);
  EXPECT_EQ(rotations.pairs(), 0);
}

TEST(PositionRotations, ReservingMoreThanMemoryIsAnError) {
  const Rotary rotary(config(128), 4096);
  PositionRotations rotations(rotary);
  EXPECT_THROW(rotations.reserve(int64_t{1} << 60), Error);
  EXPECT_THROW(rotations.reserve(std::numeric_limits<int64_t>::max()), Error);
#ifndef __SANITIZE_ADDRESS__  // AddressSanitizer ends the process if an allocation fails
  EXPECT_THROW(rotations.reserve(int64_t{1} << 56), Error);
#endif
  rotations.reserve(64);  // the object remains usable
  std::vector<float> spare(rotary.dims());
  expect_rotation(rotary, 64, rotations.at(64, spare.data()));
}

TEST(PositionRotations, ScoresAroundPositionOneMillionDependOnlyOnDistance) {
  const Rotary rotary(config(64), 4096);
  PositionRotations rotations(rotary);
  rotations.reserve(1'100'000);
  std::vector<float> spare_q(rotary.dims()), spare_k(rotary.dims());
  std::mt19937 random(test::seed(1));
  std::normal_distribution<double> normal;
  RotaryPairs q(rotary.dims()), k(rotary.dims());
  for (int n = 0; n < 200; ++n) {
    for (double& v : q) v = normal(random);
    for (double& v : k) v = normal(random);
    const int64_t key_at = 1'000'000 + random() % 50'000, distance = random() % 40'000;
    const RotaryPairs rotated_q = rotate(q, rotations.at(key_at + distance, spare_q.data()));
    const RotaryPairs rotated_k = rotate(k, rotations.at(key_at, spare_k.data()));
    double expected = 0;  // computed from the distance only
    for (int i = 0; i < rotary.pairs(); ++i) {
      const double angle = static_cast<double>(distance) * rotary.frequencies()[i];
      expected += std::cos(angle) * (q[2 * i] * k[2 * i] + q[2 * i + 1] * k[2 * i + 1]) +
                  std::sin(angle) * (q[2 * i] * k[2 * i + 1] - q[2 * i + 1] * k[2 * i]);
    }
    EXPECT_NEAR(dot(rotated_q, rotated_k), expected, 1e-5 * std::sqrt(dot(q, q) * dot(k, k)));
  }
}

TEST(PositionRotations, ThePositionOfAPageAndAnOffsetCompose) {
  const Rotary rotary(config(64), 4096);
  PositionRotations rotations(rotary);
  rotations.reserve(1'100'000);
  std::vector<float> spare(rotary.dims());
  RotaryPairs k(rotary.dims(), 1.0);
  for (const int64_t position : {int64_t{0}, int64_t{77}, int64_t{1'000'003}}) {
    for (const int offset : {0, 1, 31, 63}) {
      const RotaryPairs composed =
          rotate(rotate(k, rotations.offset(offset)), rotations.at(position, spare.data()));
      const RotaryPairs direct = rotate(k, rotations.at(position + offset, spare.data()));
      for (size_t i = 0; i < k.size(); ++i) EXPECT_NEAR(composed[i], direct[i], 1e-6) << position << "+" << offset;
    }
  }
}

}  // namespace
}  // namespace fathom
