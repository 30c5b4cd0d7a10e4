#include "base/interrupt.h"

#include <gtest/gtest.h>

#include <csignal>

#include "base/error.h"

namespace fathom {
namespace {

/// Restores the default signal handlers, and resets the token, for the other tests of the program.
class Interrupt : public ::testing::TestWithParam<int> {
 protected:
  ~Interrupt() override {
    install_interrupt_handler();
    for (const int number : {SIGINT, SIGTERM}) std::signal(number, SIG_DFL);
  }
};
INSTANTIATE_TEST_SUITE_P(Signals, Interrupt, ::testing::Values(SIGINT, SIGTERM));

TEST_P(Interrupt, FirstSignalIsReportedAndThrown) {
  install_interrupt_handler();
  EXPECT_FALSE(interrupted());
  EXPECT_NO_THROW(throw_if_interrupted());
  std::raise(GetParam());
  EXPECT_TRUE(interrupted());
  try {
    throw_if_interrupted();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kInterrupted);
    EXPECT_STREQ(error.what(), "interrupted");
  }
}

TEST_P(Interrupt, SecondSignalEndsTheProcess) {
  const auto twice = [] {
    install_interrupt_handler();
    std::raise(SIGINT);
    std::raise(GetParam());
  };
  EXPECT_EXIT(twice(), ::testing::KilledBySignal(GetParam()), "");
}

TEST_P(Interrupt, InstallingAgainRearms) {
  for (int round = 0; round < 3; ++round) {
    install_interrupt_handler();
    EXPECT_FALSE(interrupted());
    std::raise(GetParam());
    EXPECT_TRUE(interrupted());
  }
}

}  // namespace
}  // namespace fathom
