#include "base/progress.h"

#include <gtest/gtest.h>

#include <thread>

namespace fathom {
namespace {

TEST(Progress, LineShowsDoneRateAndTimeLeft) {
  EXPECT_EQ(Progress::line("reading", "tokens", 12595, 102400, 8.2),
            "reading 12.3k/100k tokens  1.5k tokens/s  59 s left");
  EXPECT_EQ(Progress::line("reading", "tokens", 1, 3, 8), "reading 1/3 tokens  0.12 tokens/s  16 s left");
}

TEST(Progress, LineOmitsUnknownValues) {
  EXPECT_EQ(Progress::line("reading", "tokens", 0, 4096, 3), "reading 0/4k tokens");
  EXPECT_EQ(Progress::line("reading", "tokens", 5, 4096, 0), "reading 5/4k tokens");
  EXPECT_EQ(Progress::line("reading", "tokens", 4096, 4096, 4), "reading 4k/4k tokens  1k tokens/s");
  EXPECT_EQ(Progress::line("writing", "tokens", 512, 0, 1), "writing 512 tokens  512 tokens/s");
}

TEST(Progress, PrintsNothingIfDisabledOrIfWorkIsShort) {
  ::testing::internal::CaptureStderr();
  {
    Progress never("reading", "tokens", 10, Progress::Show::kNever);
    Progress terminal("reading", "tokens", 10);  // stderr is captured, so it is not a terminal
    Progress quick("reading", "tokens", 10, Progress::Show::kAlways);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    for (Progress* progress : {&never, &terminal, &quick}) progress->update(5);
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(Progress, LongWorkShowsALineAndErasesItAtTheEnd) {
  ::testing::internal::CaptureStderr();
  {
    Progress progress("reading", "tokens", 100000, Progress::Show::kAlways);
    std::this_thread::sleep_for(std::chrono::milliseconds(1010));
    for (int i = 1; i <= 1000; ++i) progress.update(i);
  }
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(text.starts_with("\r\x1b[Kreading 1/97.7k tokens")) << text;
  EXPECT_TRUE(text.ends_with("\r\x1b[K")) << text;
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_LT(text.size(), 2000u) << "too many updates are shown";
}

}  // namespace
}  // namespace fathom
