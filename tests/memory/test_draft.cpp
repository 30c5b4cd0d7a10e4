// DraftTree, and sequences whose opened tokens are accepted in part or abandoned.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "allocation_limit.h"
#include "base/error.h"
#include "memory/draft_tree.h"
#include "seed.h"
#include "token_pages.h"

namespace fathom {
namespace {

using test::following;
using test::small_sequence;
using test::small_store;
using test::store_of;

constexpr PageFormat kDraftFormats[] = {PageFormat::kF32, PageFormat::kBF16, PageFormat::kQ8, PageFormat::kQ4};

/// Returns the message of the Error that `action` throws; empty: none.
std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(DraftTree, NumbersNodesInOrderOfAdd) {
  DraftTree tree;
  EXPECT_EQ(tree.size(), 0);
  EXPECT_EQ(tree.add(-1), 0);  //  0   4
  EXPECT_EQ(tree.add(0), 1);   //  1 2
  EXPECT_EQ(tree.add(0), 2);   //    3
  EXPECT_EQ(tree.add(2), 3);
  EXPECT_EQ(tree.add(-1), 4);
  EXPECT_EQ(tree.size(), 5);
  const int parents[] = {-1, 0, 0, 2, -1}, depths[] = {0, 1, 1, 2, 0};
  const std::vector<int> paths[] = {{0}, {0, 1}, {0, 2}, {0, 2, 3}, {4}};
  for (int node = 0; node < 5; ++node) {
    EXPECT_EQ(tree.parent(node), parents[node]);
    EXPECT_EQ(tree.depth(node), depths[node]);
    EXPECT_EQ(tree.path(node), paths[node]) << node;
  }
  EXPECT_FALSE(tree.is_chain());
}

TEST(DraftTree, PathsStartAtARootAndFollowParentToChild) {
  DraftTree tree;
  for (const int parent : {-1, 0, 0, 2, -1}) tree.add(parent);
  using Path = std::vector<int>;
  for (const Path& path : {Path{}, {0}, {4}, {0, 1}, {0, 2}, {0, 2, 3}}) EXPECT_TRUE(tree.is_path(path));
  for (const Path& path : {Path{1}, {0, 3}, {0, 1, 2}, {0, 4}, {2, 3}, {0, 0}, {1, 0}, {-1}, {5}, {0, 5}, {4, 0}})
    EXPECT_FALSE(tree.is_path(path)) << testing::PrintToString(path);
}

TEST(DraftTree, AllNodesOfAChainAreOnePath) {
  for (const int nodes : {0, 1, 2, 64}) {
    const DraftTree chain = DraftTree::chain(nodes);
    EXPECT_EQ(chain.size(), nodes);
    EXPECT_TRUE(chain.is_chain());
    std::vector<int> all(nodes);
    std::iota(all.begin(), all.end(), 0);
    EXPECT_TRUE(chain.is_path(all));
    if (nodes > 0) {
      EXPECT_EQ(chain.path(nodes - 1), all);
    }
    for (int node = 0; node < nodes; ++node) {
      EXPECT_EQ(chain.depth(node), node);
    }
  }
}

TEST(DraftTree, RejectsInvalidParentsAndMoreThan64Nodes) {
  DraftTree tree;
  EXPECT_EQ(error_of([&] { tree.add(0); }), "draft token 0: expected a parent from -1 to -1, found 0");
  EXPECT_EQ(error_of([&] { tree.add(-2); }), "draft token 0: expected a parent from -1 to -1, found -2");
  tree.add(-1);
  EXPECT_EQ(error_of([&] { tree.add(1); }), "draft token 1: expected a parent from -1 to 0, found 1");
  EXPECT_EQ(tree.size(), 1);
  for (int node = 1; node < 64; ++node) tree.add(-1);
  EXPECT_EQ(error_of([&] { tree.add(63); }), "draft: expected at most 64 tokens");
  EXPECT_EQ(tree.size(), 64);
  EXPECT_EQ(tree.path(63), std::vector<int>{63});
  EXPECT_NE(error_of([] { DraftTree::chain(65); }), "");
}

/// Opens and writes a draft of tokens with the ids first, first + 1, …
void draft(Sequence& sequence, int64_t tokens, int64_t first) {
  const std::vector<int64_t> ids = following(first, tokens);
  sequence.open(following(sequence.next_position(), tokens), std::vector<int32_t>(ids.begin(), ids.end()), true);
  for (int layer = 0; layer < sequence.layers(); ++layer) test::write_tokens(sequence, layer, ids);
}

/// Appends tokens one by one.
void read_one_by_one(Sequence& sequence, int64_t tokens, int64_t first) {
  for (int64_t i = 0; i < tokens; ++i) test::read_tokens(sequence, {first + i}, {sequence.next_position()});
}

bool same_token(const PageStore& a, PageId page, const PageStore& b, PageId other, int offset) {
  const PageFormat format = a.shape().format;
  for (int d = 0; d < test::kKeyDim; ++d) {
    if (page_key(format, test::kKeyDim, a.keys(page), offset, d) !=
        page_key(format, test::kKeyDim, b.keys(other), offset, d))
      return false;
  }
  for (int d = 0; d < test::kValueDim; ++d) {
    if (page_value(format, test::kValueDim, a.values(page), offset, d) !=
        page_value(format, test::kValueDim, b.values(other), offset, d))
      return false;
  }
  return true;
}

void expect_same_table(const Sequence& found, const Sequence& expected, int layer, int head) {
  const PageStore &in_found = store_of(found), &in_expected = store_of(expected);
  const PageTable &a = found.kv(layer).table(head), &b = expected.kv(layer).table(head);
  ASSERT_EQ(a.size(), b.size());
  for (size_t e = 0; e < a.size(); ++e) {
    ASSERT_EQ(a[e].filled, b[e].filled) << e;
    ASSERT_EQ(a[e].first, b[e].first) << e;
    ASSERT_EQ(a[e].position, b[e].position) << e;
    ASSERT_EQ(a[e].mask, b[e].mask) << e;
    ASSERT_EQ(a[e].page == kNoPage, b[e].page == kNoPage) << e;
    if (a[e].page == kNoPage) continue;
    for (int offset = 0; offset < a[e].filled; ++offset) {
      ASSERT_TRUE(same_token(in_found, a[e].page, in_expected, b[e].page, offset))
          << "page " << e << " token " << offset << " of layer " << layer << " head " << head;
    }
  }
}

/// Expects the same tokens with the same keys and values.
void expect_same(const Sequence& found, const Sequence& expected) {
  ASSERT_FALSE(found.is_open());
  ASSERT_EQ(found.tokens(), expected.tokens());
  ASSERT_EQ(found.next_position(), expected.next_position());
  ASSERT_EQ(found.end_position(), expected.end_position());
  ASSERT_EQ(found.ids().copy(0, found.ids().size()), expected.ids().copy(0, expected.ids().size()));
  for (int layer = 0; layer < found.layers(); ++layer) {
    ASSERT_EQ(found.kv(layer).tokens(), expected.kv(layer).tokens());
    for (int head = 0; head < found.kv(layer).heads(); ++head)
      ASSERT_NO_FATAL_FAILURE(expect_same_table(found, expected, layer, head));
  }
}

/// Returns a sequence of this many tokens, appended one by one.
Sequence sequence_of(PageFormat format, int64_t tokens, int layers = 2) {
  Sequence sequence = small_sequence(small_store(format), layers, 2);
  for (int64_t i = 0; i < tokens; ++i) test::read_tokens(sequence, {i}, {i});
  return sequence;
}

class Drafts : public testing::TestWithParam<PageFormat> {};

TEST_P(Drafts, AcceptedTokensEqualTokensReadOneByOne) {
  std::mt19937 random(test::seed(1));
  for (int64_t filled = 0; filled < kPageTokens; ++filled) {
    for (const int64_t full_pages : {0, 1}) {
      const int64_t before = full_pages * kPageTokens + filled;
      Sequence drafted = sequence_of(GetParam(), before), plain = sequence_of(GetParam(), before);
      for (const int64_t tokens : {int64_t{64}, int64_t{1}, static_cast<int64_t>(1 + random() % 64)}) {
        SCOPED_TRACE(testing::Message() << before << " tokens, draft of " << tokens);
        const auto accepted = tokens == 64 && filled % 2 ? tokens : static_cast<int64_t>(random() % (tokens + 1));
        draft(drafted, tokens, 1000 * tokens);
        drafted.accept(accepted);
        read_one_by_one(plain, accepted, 1000 * tokens);
        ASSERT_NO_FATAL_FAILURE(expect_same(drafted, plain));
        ASSERT_EQ(store_of(drafted).bytes_in_use(), store_of(plain).bytes_in_use());
      }
      test::read_following(drafted, 70, 7000);
      test::read_following(plain, 70, 7000);
      ASSERT_NO_FATAL_FAILURE(expect_same(drafted, plain)) << "after reading more tokens";
    }
  }
}

TEST_P(Drafts, AbandonedDraftsChangeNothing) {
  std::mt19937 random(test::seed(3));
  for (int64_t before = 0; before < 2 * kPageTokens; before += 5) {
    Sequence drafted = sequence_of(GetParam(), before), plain = sequence_of(GetParam(), before);
    for (int round = 0; round < 3; ++round) {
      draft(drafted, static_cast<int64_t>(1 + random() % 64), 1000);
      if (round == 0) drafted.abandon();
      if (round == 1) drafted.accept(0);
      if (round == 2) drafted.truncate(before);
      ASSERT_NO_FATAL_FAILURE(expect_same(drafted, plain));
      EXPECT_EQ(store_of(drafted).bytes_in_use(), store_of(plain).bytes_in_use());
    }
    test::read_following(drafted, 70);
    test::read_following(plain, 70);
    ASSERT_NO_FATAL_FAILURE(expect_same(drafted, plain));
  }
}

TEST_P(Drafts, WorkAfterGapsEvictionsAndMoves) {
  std::mt19937 random(test::seed(4));
  const auto begin = [&] {
    Sequence sequence = small_sequence(small_store(GetParam()), 1, 2);
    test::read_following(sequence, 200);
    std::vector<char> keep(200, 1);
    std::mt19937 same(test::seed(5));
    for (char& k : keep) k = same() % 3 != 0;
    sequence.kv(0).evict(1, keep);
    EXPECT_TRUE(sequence.kv(0).compact(kernels(), 1));
    return sequence;
  };
  Sequence drafted = begin(), plain = begin();
  for (int n = 0; n < 20; ++n) {
    if (n == 5 || n == 12) {
      drafted.move_to(640 + n);
      plain.move_to(640 + n);
    }
    if (n == 8) {  // a gap between positions
      for (Sequence* one : {&drafted, &plain}) test::read_tokens(*one, {500, 501}, {3000, 3001});
    }
    const auto accepted = static_cast<int64_t>(random() % 31);
    draft(drafted, 30, 1000 * n);
    drafted.accept(accepted);
    read_one_by_one(plain, accepted, 1000 * n);
    ASSERT_NO_FATAL_FAILURE(expect_same(drafted, plain)) << n;
  }
}

TEST_P(Drafts, AcceptingInOneForkDoesNotChangeTheOther) {
  for (const int64_t before : {40, 64, 100}) {
    Sequence drafted = sequence_of(GetParam(), before);
    const Sequence fork = drafted.fork(), plain = sequence_of(GetParam(), before);
    Sequence read_on = sequence_of(GetParam(), before);
    draft(drafted, 40, 1000);
    drafted.accept(33);
    read_one_by_one(read_on, 33, 1000);
    ASSERT_NO_FATAL_FAILURE(expect_same(drafted, read_on));
    ASSERT_NO_FATAL_FAILURE(expect_same(fork, plain));
  }
}

TEST_P(Drafts, RandomOperationsMatchReadingOneByOne) {
  std::mt19937 random(test::seed(1));
  struct DraftedAndPlain {
    Sequence drafted, plain;
  };
  std::vector<DraftedAndPlain> pairs;
  pairs.push_back({small_sequence(small_store(GetParam()), 2, 2), small_sequence(small_store(GetParam()), 2, 2)});
  for (int n = 0; n < 150; ++n) {
    SCOPED_TRACE(testing::Message() << "operation " << n);
    DraftedAndPlain& both = pairs[random() % pairs.size()];
    const int64_t first = 100 * n;
    switch (random() % 7) {
      case 0: {
        const auto count = static_cast<int64_t>(random() % 50);
        for (Sequence* one : {&both.drafted, &both.plain})
          test::read_tokens(*one, following(first, count), following(one->next_position(), count));
        break;
      }
      case 1: {
        const auto kept = static_cast<int64_t>(random() % (both.plain.tokens() + 1));
        for (Sequence* one : {&both.drafted, &both.plain}) one->truncate(std::max(kept, one->tokens() - 100));
        break;
      }
      case 2:
        if (pairs.size() < 4) {
          DraftedAndPlain copy{both.drafted.fork(), both.plain.fork()};
          pairs.push_back(std::move(copy));
        } else {
          pairs.erase(pairs.begin() + static_cast<std::ptrdiff_t>(random() % 4));
        }
        break;
      default: {
        const auto tokens = static_cast<int64_t>(1 + random() % 64);
        const auto accepted = static_cast<int64_t>(random() % (tokens + 1));
        draft(both.drafted, tokens, first);
        both.drafted.accept(accepted);
        read_one_by_one(both.plain, accepted, first);
      }
    }
    for (const DraftedAndPlain& one : pairs) ASSERT_NO_FATAL_FAILURE(expect_same(one.drafted, one.plain));
    // a discarded draft leaves a copy of the last page, if that was shared with a fork
    const size_t copies = pairs.size() * 4 * store_of(pairs[0].plain).shape().bytes();
    ASSERT_LE(store_of(pairs[0].drafted).bytes_in_use(), store_of(pairs[0].plain).bytes_in_use() + copies);
  }
}

constexpr const char* kFormatNames[] = {"f32", "bf16", "q8", "q4"};
INSTANTIATE_TEST_SUITE_P(Formats, Drafts, testing::ValuesIn(kDraftFormats),
                         [](const auto& format) { return std::string(kFormatNames[format.index]); });

TEST(Draft, RejectsPositionsPastTheLimitAndChangesNothing) {
  for (const int64_t room : {3, 2}) {
    Sequence sequence = sequence_of(PageFormat::kF32, 50), plain = sequence_of(PageFormat::kF32, 50);
    for (Sequence* one : {&sequence, &plain}) one->move_to(kPositionLimit - 50 - room);
    if (room == 3) {
      draft(sequence, 3, 1000);
      sequence.accept(3);
      EXPECT_EQ(sequence.end_position(), kPositionLimit);
    } else {
      EXPECT_THROW(draft(sequence, 3, 1000), Error);
      ASSERT_NO_FATAL_FAILURE(expect_same(sequence, plain));
      EXPECT_EQ(store_of(sequence).bytes_in_use(), store_of(plain).bytes_in_use());
    }
  }
}

TEST(Draft, OpeningWithoutMemoryChangesNothing) {
  Sequence sequence = sequence_of(PageFormat::kF32, 50);
  const Sequence plain = sequence_of(PageFormat::kF32, 50);
  const std::vector<int64_t> positions = following(50, 40);
  const std::vector<int32_t> ids(40, 7);
  test::with_each_failing_allocation([&] { sequence.open(positions, ids, true); },
                                     [&] {
                                       ASSERT_NO_FATAL_FAILURE(expect_same(sequence, plain));
                                       EXPECT_EQ(store_of(sequence).bytes_in_use(), store_of(plain).bytes_in_use());
                                     });
  EXPECT_TRUE(sequence.is_open());
}

TEST(Draft, AcceptingWithoutMemoryDiscardsTheDraft) {
  for (const bool forked : {false, true}) {  // true: the shared last page must be copied
    Sequence sequence = sequence_of(PageFormat::kF32, 50);
    const Sequence plain = sequence_of(PageFormat::kF32, 50);
    std::vector<Sequence> forks;
    if (forked) forks.push_back(sequence.fork());
    for (int allocations = 0;; ++allocations) {
      draft(sequence, 40, 1000);
      try {
        const test::AllocationLimit limit(allocations);
        sequence.accept(30);
        break;
      } catch (const std::bad_alloc&) {
        ASSERT_NO_FATAL_FAILURE(expect_same(sequence, plain)) << allocations;
      }
      ASSERT_LT(allocations, 1000);
    }
    Sequence read_on = sequence_of(PageFormat::kF32, 50);
    read_one_by_one(read_on, 30, 1000);
    ASSERT_NO_FATAL_FAILURE(expect_same(sequence, read_on));
    for (const Sequence& fork : forks) ASSERT_NO_FATAL_FAILURE(expect_same(fork, plain));
  }
}

TEST(Draft, IsRejectedIfTheBudgetIsTooSmall) {
  const PageShape shape{PageFormat::kF32, test::kKeyDim, test::kValueDim};
  const auto budget = std::make_shared<MemoryBudget>(9 * shape.bytes());
  Sequence sequence = small_sequence(std::make_shared<PageStore>(shape, budget), 2, 2);
  test::read_following(sequence, 50);
  EXPECT_NE(error_of([&] { draft(sequence, 150, 1000); }).find("(--memory)"), std::string::npos);
  EXPECT_EQ(budget->in_use(), 4 * shape.bytes());
  draft(sequence, 20, 1000);
  EXPECT_EQ(budget->in_use(), 8 * shape.bytes());
  sequence.accept(2);
  EXPECT_EQ(budget->in_use(), 4 * shape.bytes());
  EXPECT_EQ(sequence.tokens(), 52);
}

}  // namespace
}  // namespace fathom
