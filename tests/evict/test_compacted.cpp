// positions=compacted: kept tokens are compacted together.
#include <gtest/gtest.h>

#include <bit>

#include "attend/attention.h"
#include "evicting.h"

namespace fathom {
namespace {

using test::Evicting;
using test::Reading;

std::string compacting(const std::string& spec) { return spec + ",positions=compacted"; }

/// The pages of all page tables.
int64_t pages(const Evicting& e) {
  return static_cast<int64_t>(e.sequence.kv(0).store().bytes_in_use() / e.sequence.kv(0).store().shape().bytes());
}
/// The least number of pages that can hold the kept tokens.
int64_t min_pages(const Evicting& e) {
  int64_t count = 0;
  for (int h = 0; h < 2; ++h) count += (std::ssize(e.kept_tokens(h)) + 63) / 64;
  return count;
}
/// The distance from the next position to the first kept token.
int64_t first_distance(const Evicting& e, int head) {
  for (const PageEntry& entry : e.sequence.kv(0).table(head))
    if (entry.mask) return e.sequence.next_position() - (entry.position + std::countr_zero(entry.mask));
  return 0;
}

TEST(Compacted, MethodsWhoseScoresIgnorePositionsKeepTheSameTokens) {
  for (const std::string spec :
       {"streaming:budget=100,slack=20", "knorm:budget=200,slack=10", "knorm:budget=150,block=20,window=32",
        "knorm:budget=130,heads=ada", "streaming:budget=90,sink=0,slack=0"}) {
    SCOPED_TRACE(spec);
    Evicting original({}, spec), compacted({}, compacting(spec));
    EXPECT_FALSE(original.evictor->moves_tokens());
    EXPECT_TRUE(compacted.evictor->moves_tokens());
    for (const int64_t rows : {300, 100, 1, 1, 1, 250, 64, 64, 1, 500}) {
      for (Evicting* e : {&original, &compacted}) {
        e->read(rows);
        e->evict(rows == 1);
      }
      for (int h = 0; h < 2; ++h) ASSERT_EQ(compacted.kept_tokens(h), original.kept_tokens(h));
    }
  }
}

TEST(Compacted, SirLlmAndH2oTrackMovedTokens) {
  Evicting original({}, "sirllm:budget=60,slack=0,decay=0.5"),
      compacted({}, compacting("sirllm:budget=60,slack=0,decay=0.5"));
  std::vector<float> nats(1500);
  for (int i = 0; i < 1500; ++i) nats[i] = static_cast<float>(i * 7919 % 1499);
  for (int64_t first = 0; first < 1500; first += 100) {
    for (Evicting* e : {&original, &compacted}) {
      e->read(100);
      e->evictor->surprisal({first, std::span(nats).subspan(first, 100)},
                            e->sequence.state(Sequence::StateOf::kEvictor));
      e->evict(first % 300 == 0);
      if (first == 600) e->remove_newest(0);
    }
    ASSERT_EQ(compacted.kept_tokens(0), original.kept_tokens(0));
    ASSERT_EQ(compacted.kept_tokens(1), original.kept_tokens(1));
  }
  EXPECT_FALSE(compacted.sequence.kv(0).compacted(0).original_indices.empty());

  // Zero queries give all visible tokens the same attention.
  Evicting h2o({}, compacting("h2o:budget=100,slack=0,window=0,rows=0"));
  std::ranges::fill(h2o.queries, 0.0f);
  for (int n = 0; n < 10; ++n) {
    h2o.read(100);
    h2o.evict(false);
    EXPECT_EQ(std::ssize(h2o.kept_tokens(0)), 100);
  }
  // The query at index i gives 1/(i + 1) to each token, so the first tokens have the largest mean.
  std::vector<int64_t> first(100);
  std::iota(first.begin(), first.end(), 0);
  EXPECT_EQ(h2o.kept_tokens(0), first);
}

TEST(Compacted, PagesAndDistancesAreBoundedByTheBudget) {
  Evicting original({.tokens = 6000}, "knorm:budget=256"),
      compacted({.tokens = 6000}, compacting("knorm:budget=256"));
  Evicting window({.tokens = 6000}, compacting("streaming:budget=256"));
  for (int64_t read = 0; read < 5900; read += 100) {
    for (Evicting* e : {&original, &compacted, &window}) {
      e->read(100);
      e->evict(false);
    }
    for (int h = 0; h < 2; ++h) {
      ASSERT_LE(first_distance(compacted, h), (256 + 64) * 9 / 8 + 64);
      ASSERT_LE(first_distance(window, h), 256 + 64);
      ASSERT_LE(compacted.sequence.kv(0).table(h).size(), 8u) << "whatever the length of the text";
    }
    ASSERT_LE(pages(compacted), min_pages(compacted) + 2 * 2);
    ASSERT_LE(pages(window), min_pages(window) + 2);
  }
  EXPECT_GT(pages(original), 5 * pages(compacted)) << "without compaction, single kept tokens keep their pages";
  EXPECT_GT(first_distance(original, 0), 5000);
}

TEST(Compacted, AttentionUsesTheNewPositions) {
  Evicting e({}, compacting("knorm:budget=150,slack=0"));
  for (int n = 0; n < 7; ++n) {
    e.read(130);
    e.evict(false);
  }
  const std::vector<int64_t> kept[] = {e.kept_tokens(0), e.kept_tokens(1)};
  e.read(1);
  const int64_t query = e.sequence.tokens() - 1;
  std::vector<float> out(4 * test::kValueDim);
  const auto dense = attend_methods().make("dense");
  AttentionInput input;
  input.sequence = &e.sequence;
  input.kv = &e.sequence.kv(0);
  input.heads = 4;
  input.rows = 1;
  input.positions = &query;
  input.queries = e.query(query, 0);
  input.query_stride = 4 * 16;
  input.scale = e.scale();
  input.selector = dense.get();
  input.out = out.data();
  Attention(*e.pool, kernels()).run({&input, 1});
  for (int head = 0; head < 4; ++head) {
    std::vector<int64_t> tokens = kept[head / 2];
    tokens.push_back(query);
    ASSERT_GT(query + 1, 3 * std::ssize(tokens));
    const TableGaps gaps = gaps_of(e.sequence.kv(0).table(head / 2));
    ASSERT_EQ(gaps.masked, 0);
    const std::vector<double> q = e.rotated(e.query(query, head), query);
    std::vector<double> weights, expected(test::kValueDim);
    for (size_t i = 0; i < tokens.size(); ++i) {
      const int64_t position = query + 1 - std::ssize(tokens) + static_cast<int64_t>(i);
      const std::vector<double> k = e.rotated(e.key(tokens[i], head / 2), position);
      weights.push_back(std::inner_product(q.begin(), q.end(), k.begin(), 0.0) * e.scale());
    }
    Reading::softmax(weights);
    for (size_t i = 0; i < tokens.size(); ++i)
      for (int d = 0; d < test::kValueDim; ++d) expected[d] += weights[i] * e.value(tokens[i], head / 2)[d];
    for (int d = 0; d < test::kValueDim; ++d) EXPECT_NEAR(out[head * test::kValueDim + d], expected[d], 1e-5);
  }
}

TEST(Compacted, AllMethodsStayWithinTheirBudgetAfterForkAndRewind) {
  for (const char* method : {"streaming", "knorm", "keydiff", "tova", "snapkv", "h2o", "pyramidkv", "expected"}) {
    SCOPED_TRACE(method);
    Evicting e({}, compacting(std::string(method) + ":budget=100,slack=20"));
    e.read(400);
    e.evict(false);
    EXPECT_EQ(std::ssize(e.kept_tokens(0)), 100);
    const Sequence fork = e.sequence.fork();
    const std::vector<int64_t> kept = e.kept_tokens(0);
    e.read(130);
    e.evict(true);
    e.remove_newest(330);
    for (const int64_t token : e.kept_tokens(0)) EXPECT_LT(token, 200);
    EXPECT_EQ(e.sequence.next_position(), 200);
    for (int step = 0; step < 60; ++step) {
      e.read(step == 30 ? 300 : 1);
      e.evict(step % 2);
      const size_t held = e.kept_tokens(0).size() + e.kept_tokens(1).size();
      ASSERT_LE(held, 2u * 120);
    }
    EXPECT_GE(e.kept_tokens(0).size() + e.kept_tokens(1).size(), 2u * 100 - 2);
    std::vector<int64_t> fork_kept;
    for (const PageEntry& entry : fork.kv(0).table(0)) {
      for (int t = 0; t < entry.filled; ++t)
        if (entry.mask >> t & 1) fork_kept.push_back(fork.kv(0).compacted(0).original_index(entry.first + t));
    }
    EXPECT_EQ(fork_kept, kept);
  }
}

TEST(Compacted, ABudgetAboveTheLengthMovesNothing) {
  for (const char* method : {"streaming", "knorm", "tova", "snapkv", "h2o"}) {
    Evicting e({}, compacting(std::string(method) + ":budget=2k"));
    e.read(1000);
    e.evict(true);
    EXPECT_TRUE(e.sequence.kv(0).compacted(0).original_indices.empty());
    EXPECT_EQ(e.kept_tokens(0).size(), 1000u);
  }
}

}  // namespace
}  // namespace fathom
