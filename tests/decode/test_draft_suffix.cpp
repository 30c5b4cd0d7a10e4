#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "base/file_map.h"
#include "base/write_file.h"
#include "decode/draft_simulation.h"
#include "decode/drafts/history.h"
#include "decode/drafts/suffix_automaton.h"

namespace fathom {
namespace {

using test::propose_after;
using test::simulate;
using Tokens = std::vector<int32_t>;

int state_of(const SuffixAutomaton& automaton, std::span<const int32_t> tokens) {
  int state = SuffixAutomaton::kRoot;
  for (const int32_t token : tokens)
    if (state != SuffixAutomaton::kNone) state = automaton.next(state, token);
  return state;
}

/// Compares all substrings of at most `longest` tokens with a count of the text.
void check_counts(const SuffixAutomaton& automaton, const Tokens& text, size_t depth, size_t longest,
                  int32_t alphabet) {
  std::map<Tokens, int> counts;
  for (size_t begin = 0; begin < text.size(); ++begin)
    for (size_t n = 1; n <= longest && begin + n <= text.size(); ++n)
      ++counts[Tokens(text.begin() + begin, text.begin() + begin + n)];
  for (const auto& [tokens, count] : counts) {
    const int state = state_of(automaton, tokens);
    ASSERT_GT(state, 0);
    const bool at_end = std::equal(tokens.rbegin(), tokens.rend(), text.rbegin());
    if (tokens.size() <= depth) {
      ASSERT_EQ(automaton.count(state), count);
      ASSERT_EQ(automaton.continuations(state), count - at_end);
    }
    int following = 0;
    for (int32_t token = 0; token < alphabet; ++token) {
      Tokens longer = tokens;
      longer.push_back(token);
      const auto found = counts.find(longer);
      if (longer.size() > longest) continue;
      ASSERT_EQ(automaton.next(state, token) != SuffixAutomaton::kNone, found != counts.end());
      following += found != counts.end();
    }
    if (tokens.size() < longest) {
      ASSERT_EQ(automaton.edges(state), following);
    }
  }
}

TEST(SuffixAutomaton, CountsEqualBruteForceAtEachStep) {
  std::mt19937 random(test::seed(1));
  for (const int32_t alphabet : {1, 2, 3, 8}) {
    for (const int depth : {1, 3, 6, 64}) {
      SuffixAutomaton automaton(depth);
      Tokens text;
      for (int i = 0; i < 60; ++i) {
        text.push_back(static_cast<int32_t>(random() % alphabet));
        automaton.append(text.back());
        check_counts(automaton, text, depth, 9, alphabet);
        if (HasFatalFailure()) FAIL() << "alphabet " << alphabet << ", depth " << depth << ", token " << i;
      }
    }
  }
}

TEST(SuffixAutomaton, NewestIsTheStateOfTheLastTokensAndLinksAreItsSuffixes) {
  std::mt19937 random(test::seed(2));
  for (int repeat = 0; repeat < 100; ++repeat) {
    const int depth = 1 + static_cast<int>(random() % 10);
    SuffixAutomaton automaton(depth);
    Tokens text;
    for (int i = 0; i < 100; ++i) {
      text.push_back(static_cast<int32_t>(random() % 3));
      automaton.append(text.back());
      const size_t length = std::min<size_t>(depth, text.size());
      ASSERT_EQ(automaton.newest(), state_of(automaton, std::span(text).last(length)));
      // The longest suffix that occurs earlier, by comparison.
      size_t longest = 0;
      for (size_t end = 1; end < text.size(); ++end) {
        size_t n = 0;
        while (n < end && n < length && text[end - 1 - n] == text[text.size() - 1 - n]) ++n;
        longest = std::max(longest, n);
      }
      int state = automaton.newest();
      size_t matched = length;
      while (state != SuffixAutomaton::kRoot && automaton.continuations(state) == 0) {
        state = automaton.link(state);
        matched = std::min<size_t>(matched, automaton.length(state));
      }
      ASSERT_EQ(matched, longest);
    }
  }
}

TEST(SuffixAutomaton, ManySuccessorsOfAState) {
  // Each token of a wide alphabet follows the same one.
  SuffixAutomaton automaton(8);
  for (int32_t token = 1; token <= 3000; ++token) {
    automaton.append(0);
    automaton.append(token);
  }
  const int state = automaton.next(SuffixAutomaton::kRoot, 0);
  EXPECT_EQ(automaton.count(state), 3000);
  EXPECT_EQ(automaton.edges(state), 3000);
  for (int32_t token = 1; token <= 3000; ++token) ASSERT_EQ(automaton.count(automaton.next(state, token)), 1);
  EXPECT_EQ(automaton.next(state, 0), SuffixAutomaton::kNone);
}

TEST(DraftSuffix, SharesAreThoseOfTheCounts) {
  const auto source = test::make_source("suffix");
  // a b is followed by c, d and c.
  const Draft draft = propose_after(*source, {1, 2, 3, 1, 2, 4, 1, 2, 3, 9, 1, 2}, 8);
  const int c = draft.find_child(-1, 3), d = draft.find_child(-1, 4);
  ASSERT_GE(c, 0);
  ASSERT_GE(d, 0);
  EXPECT_LT(c, d);
  EXPECT_NEAR(draft.estimates[c] / draft.estimates[d], 2, 1e-4);
  EXPECT_GE(draft.find_child(c, 1), 0);
  EXPECT_GE(draft.find_child(c, 9), 0);
}

TEST(DraftSuffix, NothingIsProposedWithoutAnEarlierOccurrence) {
  const auto source = test::make_source("suffix");
  EXPECT_EQ(propose_after(*source, {1, 2, 3, 4}, 8).size(), 0);
  EXPECT_GT(propose_after(*source, {1, 2, 3, 4, 2}, 8).size(), 0);
  const auto longer = test::make_source("suffix:min=2");
  EXPECT_EQ(propose_after(*longer, {1, 2, 3, 4, 2}, 8).size(), 0);
  EXPECT_GT(propose_after(*longer, {1, 2, 3, 4, 2, 3}, 8).size(), 0);
}

TEST(DraftSuffix, DraftsAreLosslessAndRepeatedTextIsCopied) {
  std::mt19937 random(test::seed(3));
  const Tokens output = test::random_tokens(random, 200, 512);
  const auto source = test::make_source("suffix");
  const auto text = simulate(*source, test::writes(output, 1), {1}, 1000, 15);
  EXPECT_LE(text.forwards(), 200 + 800 / 16 + 10);
  const auto templated = test::make_source("suffix");
  const Tokens form = test::templated_tokens(random, 2000, 80, 400);
  const auto filled = simulate(*templated, test::writes(form, 1), {1}, 2000, 16);
  RecordProperty("tokens_per_forward", std::to_string(filled.tokens_per_forward()));
  EXPECT_GT(filled.tokens_per_forward(), 3);
}

TEST(DraftSuffix, AWindowKeepsTheNewestTokens) {
  std::mt19937 random(test::seed(4));
  const auto source = test::make_source("suffix:window=256");
  Tokens text = test::random_tokens(random, 1000, 1 << 30);
  text.insert(text.end(), {text[10], text[11], text[12]});
  EXPECT_EQ(propose_after(*source, text, 4).size(), 0);
  text.insert(text.end(), {text[900], text[901]});
  EXPECT_EQ(propose_after(*source, text, 2).tokens, (Tokens{text[902], text[903]}));
}

TEST(DraftSuffix, RejectsContradictoryParameters) {
  EXPECT_THROW(test::make_source("suffix:min=65"), Error);
  EXPECT_THROW(test::make_source("suffix:depth=0"), Error);
  EXPECT_THROW(test::make_source("suffix:window=10"), Error);
}

class DraftHistoryFile : public ::testing::Test {
 protected:
  DraftHistoryFile() : path_(concat(::testing::TempDir(), "draft_history_", ::getpid(), ".bin")) {
    std::filesystem::remove(path_);
  }
  ~DraftHistoryFile() override { std::filesystem::remove(path_); }

  std::string bytes() const { return std::string(FileMap(path_).text()); }
  void write(const std::string& bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }
  DraftHistory open(int64_t limit = 1 << 20) const { return DraftHistory(path_, limit, key_); }
  Tokens tokens(int64_t limit = 1 << 20) const {
    const DraftHistory history = open(limit);
    return Tokens(history.tokens().begin(), history.tokens().end());
  }

  std::string path_;
  DraftHistory::Key key_{512, 99};
};

TEST_F(DraftHistoryFile, AppendedTextsAreReadBackWithinTheLimit) {
  EXPECT_TRUE(tokens().empty());
  EXPECT_EQ(bytes(), "");
  EXPECT_EQ(open().damage(), "");
  open().append(Tokens{1, 2, 3});
  open().append(Tokens{4, 511, 512, -1, -5});
  EXPECT_EQ(tokens(), (Tokens{1, 2, 3, -1, 4, 511, -1}));
  EXPECT_EQ(tokens(3), (Tokens{4, 511, -1}));
  open(5).append(Tokens{6, 7});
  EXPECT_EQ(tokens(), (Tokens{511, -1, 6, 7, -1}));
  open().append({});
  EXPECT_EQ(tokens(), (Tokens{511, -1, 6, 7, -1}));
}

TEST_F(DraftHistoryFile, MatchesAreTheLongestOnesLatestFirst) {
  std::mt19937 random(test::seed(5));
  for (int i = 0; i < 3; ++i) open().append(test::random_tokens(random, 300, 3));
  const DraftHistory history = open();
  const auto all = history.tokens();
  std::vector<DraftHistory::Match> matches;
  int found = 0;
  for (int repeat = 0; repeat < 300; ++repeat) {
    const Tokens text = test::random_tokens(random, random() % 12, 3);
    history.find(text, matches);
    std::vector<std::pair<size_t, int>> expected, actual;
    int longest = DraftHistory::kGram;
    for (size_t end = all.size() - 1; end > 0; --end) {
      if (all[end] == DraftHistory::kEnd) continue;
      int n = 0;
      while (n < end && n < text.size() && all[end - 1 - n] == text[text.size() - 1 - n]) ++n;
      if (n > longest) longest = n, expected.clear();
      if (n == longest) expected.push_back({end, n});
    }
    for (const auto& match : matches) actual.push_back({match.next, match.length});
    ASSERT_EQ(actual, expected);
    found += !matches.empty();
  }
  EXPECT_GT(found, 50);
}

TEST_F(DraftHistoryFile, DamagedFilesCountAsEmptyAndForeignOnesAreErrors) {
  open().append(Tokens{1, 2, 3, 4, 5});
  const std::string good = bytes();
  for (size_t size = 1; size < good.size(); ++size) {
    write(good.substr(0, size));
    ASSERT_TRUE(tokens().empty()) << size;
    ASSERT_FALSE(open().damage().empty()) << size;
  }
  write(good + "x");
  EXPECT_TRUE(tokens().empty());
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ (i % 2 == 0 ? 0x80 : 0x01));
    write(bad);
    if (i < 24) {  // magic, version, vocabulary and its hash
      ASSERT_THROW(open(), Error) << i;
      ASSERT_EQ(bytes(), bad);
    } else {
      ASSERT_TRUE(tokens().empty()) << i;
    }
  }
  // A damaged file is replaced by the next text.
  open().append(Tokens{8, 9});
  EXPECT_EQ(tokens(), (Tokens{8, 9, -1}));
  write("This is somebody's letter.");
  EXPECT_THROW(open(), Error);
  EXPECT_EQ(bytes(), "This is somebody's letter.");
}

TEST_F(DraftHistoryFile, HostileHeadersAndTokensAreNotUsed) {
  open().append(Tokens{1, 2, 3});
  const std::string good = bytes();
  const auto with = [&](size_t offset, uint64_t value) {
    std::string bad = good;
    std::memcpy(bad.data() + offset, &value, sizeof value);
    write(bad);
  };
  for (const uint64_t count :
       {uint64_t{0}, uint64_t{3}, uint64_t{1} << 28, (uint64_t{1} << 62) + 4, ~uint64_t{0}}) {
    with(24, count);
    EXPECT_TRUE(tokens().empty());
  }
  // A vocabulary of 512 and a token of 600, with the right checksum.
  const DraftHistory::Key wide{1000, 99};
  std::filesystem::remove(path_);
  DraftHistory(path_, 100, wide).append(Tokens{1, 600});
  std::string bad = bytes();
  const int32_t vocabulary = 512;
  std::memcpy(bad.data() + 12, &vocabulary, sizeof vocabulary);
  write(bad);
  EXPECT_TRUE(tokens().empty());
}

TEST_F(DraftHistoryFile, PathsThatCannotBeUsedAreErrors) {
  EXPECT_THROW(DraftHistory("/nonexistent/folder/file", 100, key_), Error);
  EXPECT_THROW(DraftHistory(::testing::TempDir(), 100, key_), Error);
  EXPECT_THROW(DraftHistory("/dev/null", 100, key_), Error);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_THROW(open(), Error);
}

TEST_F(DraftHistoryFile, ConcurrentProcessesLoseNoText) {
  constexpr int kProcesses = 4, kTexts = 8;
  std::vector<pid_t> children;
  for (int process = 0; process < kProcesses; ++process) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        for (int32_t i = 0; i < kTexts; ++i) open().append(Tokens{process, i, process, i});
        ::_exit(0);
      } catch (...) {
        ::_exit(1);
      }
    }
    children.push_back(child);
  }
  for (int reads = 0; reads < 20; ++reads) ASSERT_EQ(tokens().size() % 5, 0u);
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
  }
  const Tokens all = tokens();
  ASSERT_EQ(all.size(), size_t{5} * kProcesses * kTexts);
  std::map<int32_t, int32_t> next;  // the texts of each process are in their order
  for (size_t i = 0; i < all.size(); i += 5) {
    ASSERT_EQ(all[i + 1], next[all[i]]++);
    ASSERT_EQ(all[i + 2], all[i]);
    ASSERT_EQ(all[i + 4], DraftHistory::kEnd);
  }
}

TEST_F(DraftHistoryFile, ASecondRunOfATextNeedsFewForwards) {
  std::mt19937 random(test::seed(6));
  const Tokens prompt = test::random_tokens(random, 50, 512), output = test::random_tokens(random, 300, 512);
  const auto run = [&] {
    const auto source = test::make_source(concat("suffix:history=", path_));
    return simulate(*source, test::writes(output, prompt.size()), prompt, output.size(), 15);
  };
  EXPECT_GT(run().forwards(), 200);
  EXPECT_LE(run().forwards(), 300 / 16 + 2);
  // Tokens of the prompt that precede the last 64 are not stored.
  const DraftHistory history(path_, 1 << 20, {512, 0});
  EXPECT_EQ(history.tokens().size(), size_t{2} * (50 + 300 + 1));
}

TEST_F(DraftHistoryFile, ADamagedHistoryIsReportedAndReplaced) {
  write("fthmhist, cut");
  ::testing::internal::CaptureStderr();
  const auto source = test::make_source(concat("suffix:history=", path_));
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("damaged"), std::string::npos);
  source->start({});
  const Tokens text{1, 2, 3};
  source->finish(text);
  EXPECT_EQ(DraftHistory(path_, 100, {512, 0}).tokens().size(), 4u);
}

TEST_F(DraftHistoryFile, AHistoryThatCannotBeWrittenDoesNotEndTheText) {
  const auto source = test::make_source(concat("suffix:history=", path_));
  source->start({});
  write("another program has replaced the file");
  const Tokens text{1, 2, 3};
  ::testing::internal::CaptureStderr();
  EXPECT_NO_THROW(source->finish(text));
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("was not written"), std::string::npos);
  EXPECT_EQ(bytes(), "another program has replaced the file");
}

}  // namespace
}  // namespace fathom
