// Pages of a context file: which are read, and which are in memory before they are needed.
#include "session/opened_context.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "memory/resident_blocks.h"
#include "seedling.h"
#include "session/session.h"
#include "temporary_folder.h"

namespace fathom {
namespace {

/// A saved context, and the pages of each of its layers.
class OpenedContextTest : public testing::Test {
 protected:
  void SetUp() override {
    Session session(test::seedling(), test::runtime(), {.cache = "f32"});
    session.fill_random(30'000);
    session.append(test::tokens(2));
    session.save(folder_.file("a.ctx"));
    file_ = std::make_shared<const ContextFile>(folder_.file("a.ctx"));
    for (size_t layer = 0; layer < file_->info().layers.size(); ++layer)
      for (int head = 0; head < file_->info().layers[layer].heads; ++head)
        for (const ContextEntry& entry : file_->table(static_cast<int>(layer), head).entries)
          layers_.at(layer).push_back(entry.page);
  }
  static void read(OpenedContext& context, std::span<const uint32_t> pages) {
    for (const uint32_t page : pages) context.reads(0)->before_read(page);
  }
  /// Waits until the thread has read pages. Returns false if it does not.
  static bool wait_for_pages(const OpenedContext& context, int64_t more_than) {
    for (int i = 0; i < 10'000 && context.page_reads().loaded <= more_than; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return context.page_reads().loaded > more_than;
  }
  static constexpr size_t kLayers = 16;  // at most

  const test::TemporaryFolder folder_;
  std::shared_ptr<const ContextFile> file_;
  std::vector<std::vector<uint32_t>> layers_ = std::vector<std::vector<uint32_t>>(kLayers);
};

TEST_F(OpenedContextTest, CountsPagesOncePerPass) {
  OpenedContext context(file_, nullptr);
  const std::span<const uint32_t> some = std::span(layers_[0]).first(10);
  read(context, some);
  read(context, some);
  EXPECT_EQ(context.page_reads().read, 10);
  EXPECT_GT(context.page_reads().missed, 0);
  EXPECT_LE(context.page_reads().missed, 10);
  const int64_t missed = context.page_reads().missed;
  read(context, std::span(layers_[1]).first(1));
  read(context, some);  // the next pass
  EXPECT_EQ(context.page_reads().read, 21);
  EXPECT_LE(context.page_reads().missed, missed + 1);
}

TEST_F(OpenedContextTest, ANewLayerIsReadAheadIfTheOneBeforeWasNeededWhole) {
  OpenedContext context(file_, nullptr);
  read(context, layers_[0]);
  EXPECT_EQ(context.page_reads().loaded, 0);
  read(context, std::span(layers_[1]).first(1));
  ASSERT_TRUE(wait_for_pages(context, 0));
}

TEST_F(OpenedContextTest, PagesOfThePassBeforeAreReadAhead) {
  const auto budget = std::make_shared<MemoryBudget>(1);  // so the least memory
  OpenedContext context(file_, budget);
  const std::span<const uint32_t> few = std::span(layers_[1]).first(2);
  read(context, std::span(layers_[0]).first(2));
  read(context, few);
  const auto page_bytes = static_cast<size_t>(file_->info().pages[0].page_bytes());
  size_t other = 0;  // bytes of other pages, so that the first ones are returned to the system
  for (size_t layer = 2; layer < file_->info().layers.size(); ++layer) {
    read(context, layers_[layer]);
    other += layers_[layer].size() * page_bytes;
  }
  ASSERT_GT(other, size_t{20} << 20) << "the context is too small for this test";
  const int64_t loaded = context.page_reads().loaded;
  read(context, std::span(layers_[0]).first(2));
  ASSERT_TRUE(wait_for_pages(context, loaded));
  const int64_t missed = context.page_reads().missed;
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  read(context, few);
  EXPECT_LE(context.page_reads().missed, missed + 1);
}

TEST_F(OpenedContextTest, SessionsReportReads) {
  const auto engine = std::make_shared<Engine>(test::seedling(), test::runtime());
  SessionOptions options = Session::options_of(*file_);
  Session session = Session::open(engine, file_, options);
  EXPECT_EQ(session.file_page_reads().read, 0) << "opening reads no page";
  const int token = 5;
  session.append({&token, 1});
  size_t pages = 0;
  for (const auto& layer : layers_) pages += layer.size();
  EXPECT_EQ(session.file_page_reads().read, static_cast<int64_t>(pages));
  const Session fork = session.fork();
  EXPECT_EQ(fork.file_page_reads().read, session.file_page_reads().read);
  const std::vector<const Session*> parts{&session, &fork};
  EXPECT_EQ(Session::join(parts, {}).file_page_reads().read, session.file_page_reads().read) << "one file";
}

}  // namespace
}  // namespace fathom
