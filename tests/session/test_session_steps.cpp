// Steps of several sessions in one pass: single tokens together with chunks of prompts.
#include <gtest/gtest.h>

#include "base/error.h"
#include "seedling.h"
#include "session/session.h"
#include "temporary_folder.h"

namespace fathom {
namespace {

std::vector<float> logits_copy(const Session& session) {
  return {session.logits().begin(), session.logits().end()};
}

/// Reads a prompt in steps while two other sessions decode, and compares all results with those of each alone.
void expect_same_as_alone(const SessionOptions& options, int64_t length) {
  const auto engine = std::make_shared<Engine>(test::seedling(), test::runtime());
  Session reading(engine, options), alone(engine, options);
  std::vector<Session> decoding, decoding_alone;
  for (const int64_t n : {40, 90}) {
    for (std::vector<Session>* list : {&decoding, &decoding_alone}) {
      list->emplace_back(engine, SessionOptions{.chunk = 64});
      list->back().append(test::tokens(n));
    }
  }
  const std::vector<int32_t> prompt = test::tokens(length, 3);
  std::vector<int32_t> token(2, 5);
  int64_t done = reading.restore(prompt);
  EXPECT_EQ(done, 0);
  while (done < length) {
    const int64_t count = reading.next_chunk(length - done);
    std::vector<Session::Step> steps;
    for (size_t i = 0; i < 2; ++i) steps.push_back({&decoding[i], {&token[i], 1}});
    steps.push_back({.session = &reading,
                     .tokens = std::span(prompt).subspan(done, count),
                     .prompt = true,
                     .last = done + count == length});
    for (const std::exception_ptr& error : Session::try_steps(steps)) ASSERT_EQ(error, nullptr);
    for (size_t i = 0; i < 2; ++i) {
      decoding_alone[i].append({&token[i], 1});
      EXPECT_EQ(logits_copy(decoding[i]), logits_copy(decoding_alone[i]));
      token[i] = (token[i] * 7 + 1) % 300;
    }
    done += count;
  }
  alone.append(prompt);
  EXPECT_EQ(reading.ids(), alone.ids());
  EXPECT_EQ(logits_copy(reading), logits_copy(alone));
  for (Session* session : {&reading, &alone}) test::steps(*session, {9, 8});
  EXPECT_EQ(logits_copy(reading), logits_copy(alone));
}

TEST(SessionSteps, PromptsAreReadWithTheBitsOfAppendWhileOthersDecode) {
  expect_same_as_alone({.chunk = 64}, 230);
  expect_same_as_alone({.chunk = 96, .attend = "quest:budget=64"}, 230);
  expect_same_as_alone({.chunk = 64, .attend = "em-llm:window=64,sink=16,min=4,max=16,budget=32"},
                       230);  // needs surprisal
  expect_same_as_alone({.chunk = 64, .evict = "h2o:budget=96"}, 230);
}

TEST(SessionSteps, PromptsThatWereReadInStepsAreRestored) {
  const test::TemporaryFolder folder;
  const std::vector<int32_t> prompt = test::tokens(200);
  for (const bool on_disk : {false, true}) {
    const auto engine = std::make_shared<Engine>(test::seedling(), test::runtime());
    SessionOptions options{.chunk = 64, .share_prefixes = !on_disk};
    if (on_disk) options.disk_cache = std::make_shared<DiskCache>(folder.path(), int64_t{1} << 30);
    Session first(engine, options);
    EXPECT_EQ(first.restore(prompt), 0);
    for (int64_t done = 0; done < std::ssize(prompt);) {
      const int64_t count = first.next_chunk(std::ssize(prompt) - done);
      const Session::Step step{.session = &first,
                               .tokens = std::span(prompt).subspan(done, count),
                               .prompt = true,
                               .last = done + count == std::ssize(prompt)};
      ASSERT_EQ(Session::try_steps({&step, 1})[0], nullptr);
      done += count;
    }
    Session second(engine, options);
    EXPECT_EQ(second.restore(prompt), 192);
    EXPECT_THROW(second.restore(prompt), Error) << "it has tokens";
    const Session::Step step{
        .session = &second, .tokens = std::span(prompt).subspan(192), .prompt = true, .last = true};
    ASSERT_EQ(Session::try_steps({&step, 1})[0], nullptr);
    EXPECT_EQ(logits_copy(first), logits_copy(second));
  }
  SessionOptions large{.chunk = 64, .cache_block = 128};
  large.disk_cache = std::make_shared<DiskCache>(folder.file("large"), int64_t{1} << 30);
  for (const int64_t restored : {0, 128}) {
    Session session(test::seedling(), test::runtime(), large);
    session.append(prompt);
    EXPECT_EQ(session.restored(), restored);
  }
  EXPECT_THROW(Session(test::seedling(), test::runtime(), {.chunk = 64, .cache_block = 96}), Error);
}

}  // namespace
}  // namespace fathom
