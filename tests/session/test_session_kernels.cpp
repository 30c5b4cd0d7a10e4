// A session uses only the kernels of its runtime, with all methods.
#include <gtest/gtest.h>

#include "kernels/watched_kernels.h"
#include "models/tiny_model.h"
#include "seedling.h"

namespace fathom {
namespace {

constexpr const char* kAttend[] = {"dense",
                                   "window:sink=4,window=64",
                                   "lm-infinite:sink=4,window=64",
                                   "tempscale",
                                   "quest:budget=128,dense_layers=0",
                                   "recycled:budget=64,stride=2",
                                   "tokenselect:budget=32,window=16,sink=4",
                                   "hip:budget=32,window=32,sink=4,dense_layers=0",
                                   "infllm:sink=4,window=64,chunk=64,block=16,topk=2",
                                   "em-llm:sink=4,window=64,chunk=64,min=8,max=32,budget=64",
                                   "actqkv:sink=4,window=64,chunk=64,block=16,topk=2,question_end=20",
                                   "shadowkv:budget=64,outliers=2,rank=16",
                                   "squeezed:min_context=128,clusters=0.1",
                                   "layers:full=0,then=quest,else=(tokenselect:budget=32,window=16,sink=4)"};
constexpr const char* kEvict[] = {"expected:budget=100",
                                  "h2o:budget=100",
                                  "h2o:budget=100,positions=compacted",
                                  "keydiff:budget=100",
                                  "knorm:budget=100",
                                  "pyramidkv:budget=100",
                                  "sirllm:budget=100",
                                  "snapkv:budget=100",
                                  "streaming:budget=100",
                                  "tova:budget=100",
                                  "snapkv:budget=100,critical=true"};

std::shared_ptr<const Model> landmark_model() {
  test::TinyFile file;
  file.extra = [](GgufWriter& w) {
    w.set("llama.attention.landmark_block", GgufType::kU32, uint64_t{15});
    w.set("llama.attention.landmark_token_id", GgufType::kU32, uint64_t{0});
  };
  return test::open_tiny(file);
}

/// Returns the logits after a text of 400 tokens, read in chunks, and after 20 more tokens, read one by one.
std::vector<float> logits(const std::shared_ptr<const Model>& model, const Kernels& table,
                          const SessionOptions& options) {
  Session session(model, std::make_shared<Runtime>(2, table), options);
  session.append(test::tokens(400));
  std::vector<float> all = test::logits_of(session);
  test::steps(session, test::tokens(20, 2));
  all.insert(all.end(), session.logits().begin(), session.logits().end());
  return all;
}

void expect_own_kernels(const std::shared_ptr<const Model>& model, SessionOptions options) {
  SCOPED_TRACE(testing::Message() << "attend " << options.attend << " evict " << options.evict);
  options.chunk = 100;
  const std::vector<float> expected = logits(model, kernels(), options);
  const Kernels own = kernels();
  const test::WatchedKernels watched;
  EXPECT_EQ(logits(model, own, options), expected);
  EXPECT_EQ(watched.calls(), 0) << "calls through the process-wide table";
  logits(model, kernels(), options);
  EXPECT_GT(watched.calls(), 0) << "no call was counted, so nothing was tested";
}

TEST(SessionKernels, SelectorsUseOnlyTheKernelsOfTheRuntime) {
  for (const char* attend : kAttend) expect_own_kernels(test::floats(), {.attend = attend});
  for (const char* attend : {"dense", "landmark:topk=2", "landmark:topk=2,positions=original"})
    expect_own_kernels(landmark_model(), {.attend = attend});
}

TEST(SessionKernels, EvictorsUseOnlyTheKernelsOfTheRuntime) {
  for (const char* evict : kEvict) expect_own_kernels(test::floats(), {.evict = evict});
}

TEST(SessionKernels, TheReferenceKernelsRunAWholeSession) {
  SessionOptions options;
  options.attend = "quest:budget=128,dense_layers=0";
  options.evict = "h2o:budget=200";
  options.cache = "f32";
  const test::WatchedKernels watched;
  const std::vector<float> found = logits(test::floats(), kernels("reference"), options);
  if (&kernels() != &kernels("reference")) {
    EXPECT_EQ(watched.calls(), 0);
  }
  for (const float logit : found) ASSERT_TRUE(std::isfinite(logit));
}

}  // namespace
}  // namespace fathom
