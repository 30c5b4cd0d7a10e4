// DraftTree, and the pages of sequences after drafts are accepted or abandoned.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <random>

#include "allocation_limit.h"
#include "base/error.h"
#include "seed.h"
#include "token_pages.h"

namespace fathom {
namespace {

using test::following;
using test::small_sequence;
using test::small_store;
using test::store_of;

constexpr PageFormat kFormats[] = {PageFormat::kF32, PageFormat::kBF16, PageFormat::kQ8, PageFormat::kQ4};

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
  const uint64_t paths[] = {0b1, 0b11, 0b101, 0b1101, 0b10000};
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
    for (int node = 0; node < nodes; ++node) {
      EXPECT_EQ(chain.depth(node), node);
      EXPECT_EQ(std::popcount(chain.path(node)), node + 1);
    }
  }
  EXPECT_EQ(DraftTree::chain(64).path(63), ~uint64_t{0});
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
  EXPECT_EQ(tree.path(63), uint64_t{1} << 63);
  EXPECT_NE(error_of([] { DraftTree::chain(65); }), "");
}

/// Returns a random tree in which the parent of most nodes is the previous node.
DraftTree random_tree(std::mt19937& random, int nodes) {
  DraftTree tree;
  for (int node = 0; node < nodes; ++node)
    tree.add(random() % 3 ? node - 1 : static_cast<int>(random() % (node + 1)) - 1);
  return tree;
}

/// Returns the path from a root to a random node, or an empty path.
std::vector<int> random_path(std::mt19937& random, const DraftTree& tree) {
  std::vector<int> path;
  for (int node = static_cast<int>(random() % (tree.size() + 1)) - 1; node >= 0; node = tree.parent(node))
    path.insert(path.begin(), node);
  return path;
}

/// Opens and writes a draft whose nodes have the ids first, first + 1, …
void draft(Sequence& sequence, const DraftTree& tree, int64_t first) {
  const std::vector<int64_t> ids = following(first, tree.size());
  sequence.open_draft(tree, std::vector<int32_t>(ids.begin(), ids.end()));
  for (int layer = 0; layer < sequence.layers(); ++layer) test::write_tokens(sequence, layer, ids);
}

/// Appends the nodes of a path one by one.
void read_one_by_one(Sequence& sequence, const std::vector<int>& path, int64_t first) {
  for (const int node : path) test::read_tokens(sequence, {first + node}, {sequence.next_position()});
}

/// The bytes of pages to compare. Discarded tokens may leave bytes after the newest token.
enum class ComparedBytes { kAll, kTokens };

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

void expect_same_table(const Sequence& found, const Sequence& expected, int layer, int head, ComparedBytes bytes) {
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
    if (bytes == ComparedBytes::kTokens) continue;
    ASSERT_EQ(std::memcmp(in_found.keys(a[e].page), in_expected.keys(b[e].page), in_found.shape().bytes()), 0)
        << "page " << e << " of layer " << layer << " head " << head;
  }
}

/// Expects the same tokens and the same bytes in their pages.
void expect_same(const Sequence& found, const Sequence& expected, ComparedBytes bytes = ComparedBytes::kAll) {
  ASSERT_EQ(found.draft(), nullptr);
  ASSERT_EQ(found.tokens(), expected.tokens());
  ASSERT_EQ(found.next_position(), expected.next_position());
  ASSERT_EQ(found.end_position(), expected.end_position());
  ASSERT_EQ(found.ids().copy(0, found.ids().size()), expected.ids().copy(0, expected.ids().size()));
  for (int layer = 0; layer < found.layers(); ++layer) {
    ASSERT_EQ(found.kv(layer).draft(), nullptr);
    ASSERT_EQ(found.kv(layer).tokens(), expected.kv(layer).tokens());
    for (int head = 0; head < found.kv(layer).heads(); ++head)
      ASSERT_NO_FATAL_FAILURE(expect_same_table(found, expected, layer, head, bytes));
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
      // the largest number of nodes, the smallest, and a random one
      const int nodes[] = {64, 1, static_cast<int>(1 + random() % 64)};
      for (int n = 0; n < 3; ++n) {
        SCOPED_TRACE(testing::Message() << before << " tokens, draft " << n << " of " << nodes[n]);
        const DraftTree tree = n == 0 && full_pages == 0 ? DraftTree::chain(64) : random_tree(random, nodes[n]);
        std::vector<int> path = random_path(random, tree);
        if (n == 0 && filled % 2 == 0) {  // up to the last node
          path.clear();
          for (int node = tree.size() - 1; node >= 0; node = tree.parent(node)) path.insert(path.begin(), node);
        }
        const int64_t first = 1000 * (n + 1);
        draft(drafted, tree, first);
        drafted.accept(path);
        read_one_by_one(plain, path, first);
        ASSERT_NO_FATAL_FAILURE(expect_same(drafted, plain));
        ASSERT_EQ(store_of(drafted).bytes_in_use(), store_of(plain).bytes_in_use());
      }
      test::read_following(drafted, 70, 7000);
      test::read_following(plain, 70, 7000);
      ASSERT_NO_FATAL_FAILURE(expect_same(drafted, plain)) << "after reading more tokens";
    }
  }
}

TEST_P(Drafts, TakeAtMostTwoPagesAHead) {
  std::mt19937 random(test::seed(1));
  for (int64_t before = 0; before < 2 * kPageTokens; before += 7) {
    Sequence sequence = sequence_of(GetParam(), before);
    const size_t page = store_of(sequence).shape().bytes(), bytes = store_of(sequence).bytes_in_use();
    for (const DraftTree& tree : {DraftTree::chain(64), DraftTree::chain(1), random_tree(random, 40)}) {
      draft(sequence, tree, 1000);
      int deepest = 0;
      for (int node = 0; node < tree.size(); ++node) deepest = std::max(deepest, tree.depth(node));
      const size_t pages = before % kPageTokens + deepest >= kPageTokens ? 2 : 1;
      EXPECT_EQ(store_of(sequence).bytes_in_use(), bytes + 4 * pages * page);
      EXPECT_EQ(sequence.tokens(), before) << "draft nodes do not count";
      sequence.abandon();
      EXPECT_EQ(store_of(sequence).bytes_in_use(), bytes);
    }
  }
}

TEST_P(Drafts, NodesAreRotatedByTheOffsetOfTheirPosition) {
  std::mt19937 random(test::seed(2));
  for (const int64_t before : {0, 1, 50, 63, 64, 100}) {
    Sequence sequence = sequence_of(GetParam(), before);
    const DraftTree tree = random_tree(random, 64);
    draft(sequence, tree, 1000);
    for (int table = 0; table < 4; ++table) {
      const PagedKv& kv = sequence.kv(table / 2);
      ASSERT_EQ(kv.draft(), &tree);
      const DraftPages& pages = kv.draft_pages(table % 2);
      EXPECT_EQ(pages.members[0] & pages.members[1], 0u);
      EXPECT_EQ(pages.members[0] | pages.members[1], ~uint64_t{0});
      EXPECT_EQ(pages.positions[0], before / kPageTokens * kPageTokens);
      EXPECT_EQ(pages.positions[1], pages.positions[0] + kPageTokens);
      for (int node = 0; node < tree.size(); ++node) {
        const int64_t position = before + tree.depth(node);
        const size_t p = pages.members[1] >> node & 1;
        ASSERT_EQ(pages.positions[p], position / kPageTokens * kPageTokens) << node;
        // rotated by the offset that it has once it is accepted
        const auto offset = static_cast<int>(position % kPageTokens);
        std::vector<float> key(test::kKeyDim);
        read_key(GetParam(), test::kKeyDim, store_of(sequence).keys(pages.pages[p].get()), node, key.data());
        for (int pair = 0; pair < test::kKeyDim / 2; ++pair) {
          const double angle = pair < test::kRotaryDim / 2 ? offset * test::small_rotary().frequencies()[pair] : 0;
          const double even = test::element(1000 + node, table, 0, 2 * pair),
                       odd = test::element(1000 + node, table, 0, 2 * pair + 1);
          ASSERT_NEAR(key[2 * pair], even * std::cos(angle) - odd * std::sin(angle),
                      2 * test::rounding(GetParam()));
          ASSERT_NEAR(key[2 * pair + 1], even * std::sin(angle) + odd * std::cos(angle),
                      2 * test::rounding(GetParam()));
        }
      }
    }
    sequence.abandon();
  }
}

TEST_P(Drafts, AbandonedDraftsChangeNothing) {
  std::mt19937 random(test::seed(3));
  for (const int64_t before : {0, 1, 63, 64, 100}) {
    Sequence drafted = sequence_of(GetParam(), before), plain = sequence_of(GetParam(), before);
    const uint64_t version = drafted.kv(0).version(1);
    for (int n = 0; n < 5; ++n) {
      const DraftTree tree = random_tree(random, 1 + static_cast<int>(random() % 64));
      draft(drafted, tree, 1000);
      switch (n % 3) {
        case 0:
          drafted.abandon();
          break;
        case 1:
          drafted.accept({});
          break;
        default:
          drafted.truncate(before);
      }
      ASSERT_NO_FATAL_FAILURE(expect_same(drafted, plain));
      EXPECT_EQ(store_of(drafted).bytes_in_use(), store_of(plain).bytes_in_use());
      EXPECT_EQ(drafted.kv(0).version(1), version);
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
    const DraftTree tree = random_tree(random, 30);
    const std::vector<int> path = random_path(random, tree);
    draft(drafted, tree, 1000 * n);
    drafted.accept(path);
    read_one_by_one(plain, path, 1000 * n);
    ASSERT_NO_FATAL_FAILURE(expect_same(drafted, plain)) << n;
  }
}

TEST_P(Drafts, AcceptingInOneForkDoesNotChangeTheOther) {
  for (const int64_t before : {40, 64, 100}) {
    Sequence drafted = sequence_of(GetParam(), before);
    const Sequence fork = drafted.fork(), plain = sequence_of(GetParam(), before);
    Sequence read_on = sequence_of(GetParam(), before);
    const DraftTree tree = DraftTree::chain(40);
    draft(drafted, tree, 1000);
    std::vector<int> path(33);
    std::iota(path.begin(), path.end(), 0);
    drafted.accept(path);
    read_one_by_one(read_on, path, 1000);
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
        const DraftTree tree = random_tree(random, 1 + static_cast<int>(random() % 64));
        const std::vector<int> path = random_path(random, tree);
        draft(both.drafted, tree, first);
        both.drafted.accept(path);
        read_one_by_one(both.plain, path, first);
      }
    }
    for (const DraftedAndPlain& one : pairs) ASSERT_NO_FATAL_FAILURE(expect_same(one.drafted, one.plain));
    ASSERT_EQ(store_of(pairs[0].drafted).bytes_in_use(), store_of(pairs[0].plain).bytes_in_use());
  }
}

constexpr const char* kFormatNames[] = {"f32", "bf16", "q8", "q4"};
INSTANTIATE_TEST_SUITE_P(Formats, Drafts, testing::ValuesIn(kFormats),
                         [](const auto& format) { return std::string(kFormatNames[format.index]); });

TEST(Draft, RejectsInvalidPathsAndDiscardsTheDraft) {
  Sequence sequence = sequence_of(PageFormat::kF32, 50);
  const Sequence plain = sequence_of(PageFormat::kF32, 50);
  DraftTree tree;
  for (const int parent : {-1, 0, 0, 2}) tree.add(parent);
  for (const std::vector<int>& path : {std::vector{1}, {0, 3}, {0, 1, 2}, {4}, {-1}}) {
    draft(sequence, tree, 1000);
    EXPECT_EQ(error_of([&] { sequence.accept(path); }), "the accepted tokens are not a path of the draft");
    ASSERT_NO_FATAL_FAILURE(expect_same(sequence, plain));
  }
  EXPECT_EQ(error_of([&] { sequence.accept(std::vector{0}); }),
            "cannot accept tokens: the sequence has no open draft");
  ASSERT_NO_FATAL_FAILURE(expect_same(sequence, plain));
  EXPECT_EQ(store_of(sequence).bytes_in_use(), store_of(plain).bytes_in_use());
}

TEST(Draft, IsRejectedByLayersWithLandmarks) {
  Sequence sequence = small_sequence(small_store(), 1, 1, 51);
  test::read_following(sequence, 30);
  const DraftTree tree = DraftTree::chain(2);
  try {
    sequence.open_draft(tree, std::vector<int32_t>{1, 2});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage);
    EXPECT_STREQ(error.what(), "this model was trained with landmarks: drafts are not supported");
  }
  EXPECT_EQ(sequence.draft(), nullptr);
  test::read_following(sequence, 30);
  EXPECT_EQ(sequence.tokens(), 60);
}

TEST(Draft, RejectsPositionsPastTheLimitAndChangesNothing) {
  for (const int64_t room : {3, 2}) {
    Sequence sequence = sequence_of(PageFormat::kF32, 50), plain = sequence_of(PageFormat::kF32, 50);
    for (Sequence* one : {&sequence, &plain}) one->move_to(kPositionLimit - 50 - room);
    const DraftTree tree = DraftTree::chain(3);
    if (room == 3) {
      draft(sequence, tree, 1000);
      sequence.accept(std::vector{0, 1, 2});
      EXPECT_EQ(sequence.end_position(), kPositionLimit);
    } else {
      EXPECT_THROW(sequence.open_draft(tree, std::vector<int32_t>{1, 2, 3}), Error);
      ASSERT_NO_FATAL_FAILURE(expect_same(sequence, plain));
      EXPECT_EQ(store_of(sequence).bytes_in_use(), store_of(plain).bytes_in_use());
    }
  }
}

TEST(Draft, OpeningWithoutMemoryChangesNothing) {
  Sequence sequence = sequence_of(PageFormat::kF32, 50);
  const Sequence plain = sequence_of(PageFormat::kF32, 50);
  const DraftTree tree = DraftTree::chain(40);
  const std::vector<int32_t> ids(40, 7);
  test::with_each_failing_allocation([&] { sequence.open_draft(tree, ids); },
                                     [&] {
                                       ASSERT_NO_FATAL_FAILURE(expect_same(sequence, plain));
                                       EXPECT_EQ(store_of(sequence).bytes_in_use(), store_of(plain).bytes_in_use());
                                     });
  EXPECT_EQ(sequence.draft(), &tree);
}

TEST(Draft, AcceptingWithoutMemoryDiscardsTheDraft) {
  for (const bool forked : {false, true}) {  // true: the shared last page must be copied
    Sequence sequence = sequence_of(PageFormat::kF32, 50);
    const Sequence plain = sequence_of(PageFormat::kF32, 50);
    const DraftTree tree = DraftTree::chain(40);
    std::vector<int> path(40);
    std::iota(path.begin(), path.end(), 0);
    std::vector<Sequence> forks;
    if (forked) forks.push_back(sequence.fork());
    for (int allocations = 0;; ++allocations) {
      draft(sequence, tree, 1000);
      try {
        const test::AllocationLimit limit(allocations);
        sequence.accept(path);
        break;
      } catch (const std::bad_alloc&) {
        ASSERT_NO_FATAL_FAILURE(expect_same(sequence, plain, ComparedBytes::kTokens)) << allocations;
      }
      ASSERT_LT(allocations, 1000);
    }
    Sequence read_on = sequence_of(PageFormat::kF32, 50);
    read_one_by_one(read_on, path, 1000);
    ASSERT_NO_FATAL_FAILURE(expect_same(sequence, read_on));
    for (const Sequence& fork : forks) ASSERT_NO_FATAL_FAILURE(expect_same(fork, plain));
  }
}

TEST(Draft, IsRejectedIfTheBudgetIsTooSmall) {
  const PageShape shape{PageFormat::kF32, test::kKeyDim, test::kValueDim};
  const auto budget = std::make_shared<MemoryBudget>(9 * shape.bytes());
  Sequence sequence = small_sequence(std::make_shared<PageStore>(shape, budget), 2, 2);
  test::read_following(sequence, 50);
  const DraftTree too_long = DraftTree::chain(20), fits = DraftTree::chain(10);
  EXPECT_NE(error_of([&] { sequence.open_draft(too_long, std::vector<int32_t>(20)); }).find("(--memory)"),
            std::string::npos);
  EXPECT_EQ(budget->in_use(), 4 * shape.bytes());
  draft(sequence, fits, 1000);
  EXPECT_EQ(budget->in_use(), 8 * shape.bytes());
  sequence.accept(std::vector{0, 1});
  EXPECT_EQ(budget->in_use(), 4 * shape.bytes());
  EXPECT_EQ(sequence.tokens(), 52);
}

}  // namespace
}  // namespace fathom
