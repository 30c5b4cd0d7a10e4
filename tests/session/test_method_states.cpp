// States of selectors and evictors that are saved and loaded: a session that continues with loaded states gives the
// same logits, bit by bit, and altered bytes are refused or safe.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <random>

#include "attend/methods.h"
#include "base/error.h"
#include "evict/methods.h"
#include "models/model_metadata.h"
#include "models/tiny_model.h"
#include "seedling.h"
#include "session/session.h"
#include "shared_data.h"

namespace fathom {
namespace {

using Owner = Sequence::StateOf;

struct MethodCase {
  std::string attend = "dense", evict = "none";
  int layers = 0;  // as SessionOptions::layers
  friend void PrintTo(const MethodCase& one, std::ostream* out) { *out << one.attend << " " << one.evict; }
};

/// Returns the method's name with parameters that suit a text of a few hundred tokens.
std::string small_spec(const MethodInfo& info) {
  static const std::map<std::string, std::string> values{
      {"block", "16"},
      {"budget", "96"},
      {"chunk", "64"},
      {"contiguity", "0.7"},
      {"dense_layers", "1"},
      {"max", "16"},
      {"min", "4"},
      {"outliers", "2"},
      {"min_context", "110"},
      {"queries", "16"},
      {"question_end", "9"},
      {"rank", "4"},
      {"rows", "8"},
      {"refine", "modularity"},
      {"sink", "8"},
      {"slack", "16"},
      {"stride", "3"},
      {"theta", "-1"},
      {"topk", "5"},
      {"warmup", "2"},
      {"window", "64"},
      {"then", "(quest:budget=128,dense_layers=0)"},
      {"else", "(infllm:window=64,sink=8,block=16,topk=2,chunk=64)"}};
  std::string spec = info.name;
  for (const Parameter& parameter : info.parameters)
    if (values.contains(parameter.name))
      spec += (spec == info.name ? ":" : ",") + parameter.name + "=" + values.at(parameter.name);
  return spec;
}

std::vector<MethodCase> method_cases() {
  std::vector<MethodCase> cases;
  for (const auto& entry : attend_methods().entries()) cases.push_back({.attend = small_spec(entry.info)});
  for (const auto& entry : evict_methods().entries()) cases.push_back({.evict = small_spec(entry.info)});
  const MethodInfo& snapkv = evict_methods().find(parse_spec("snapkv")).info;
  cases.push_back({.attend = "layers:full=1,then=(hip:window=64,budget=96,dense_layers=0),"
                             "else=(infllm:window=64,sink=8,block=16,topk=2,chunk=64)"});
  cases.push_back({.attend = "quest:budget=64,dense_layers=0",
                   .evict = "h2o:budget=128,positions=compacted,window=16,slack=8"});
  cases.push_back({.evict = "snapkv:budget=128,window=32,queries=16,critical=true"});
  cases.push_back({.evict = "expected:share=0.5,critical=true"});
  cases.push_back({.attend = "quest:budget=128,dense_layers=0", .evict = small_spec(snapkv), .layers = 2});
  return cases;
}

/// Returns a new session with these methods, and with a model that they accept.
Session open_session(const MethodCase& methods) {
  static const std::vector<std::shared_ptr<const Model>> models = [] {
    test::TinyFile landmarks, softplus;
    landmarks.extra = [](GgufWriter& writer) {
      writer.set("llama.attention.landmark_block", GgufType::kU32, uint64_t{50});
      writer.set("llama.attention.landmark_token_id", GgufType::kU32, uint64_t{0});
    };
    softplus.extra = [](GgufWriter& writer) {
      writer.set(std::string("llama.") + kSoftplusKey, GgufType::kBool, true);
      writer.set(std::string("llama.") + kSoftplusPowerKey, GgufType::kF32, 3.0);
    };
    return std::vector{test::floats(), test::open_tiny(landmarks), test::open_tiny(softplus)};
  }();
  static const auto runtime = std::make_shared<Runtime>(1);
  const SessionOptions options{
      .chunk = 128, .attend = methods.attend, .evict = methods.evict, .layers = methods.layers};
  for (size_t i = 0; i + 1 < models.size(); ++i) {
    try {
      return {models[i], runtime, options};
    } catch (const Error&) {  // the method needs another model
    }
  }
  return {models.back(), runtime, options};
}

/// Sets a state of a session, as opening a saved sequence does.
void set_state(const Session& session, Owner owner, std::unique_ptr<SequenceState> state) {
  const_cast<Sequence&>(session.sequence()).set_state(owner, std::move(state));
}

std::vector<std::byte> saved_state(const Session& session, Owner owner) {
  ByteWriter out;
  session.sequence().state(owner)->save(out, session.sequence());
  return {out.bytes().begin(), out.bytes().end()};
}

/// Loads a state for a session. empty: a new state of the method.
std::unique_ptr<SequenceState> loaded_state(std::span<const std::byte> bytes, const Session& session,
                                            const SequenceState& empty) {
  std::unique_ptr<SequenceState> state = empty.fork();
  ByteReader in(bytes, "the saved state");
  state->load(in, session.sequence());
  in.expect_end();
  return state;
}

class MethodStates : public testing::TestWithParam<MethodCase> {
 protected:
  /// Reads a text in chunks, then some tokens one by one.
  void read(int64_t text, int64_t single = 10) {
    session_.append(test::tokens(text));
    test::steps(session_, test::tokens(single, 5));
    for (const Owner owner : {Owner::kSelector, Owner::kEvictor})
      if (session_.sequence().state(owner)) owners_.push_back(owner);
  }
  /// Returns a fork whose states were saved and loaded.
  Session reopened() const {
    Session copy = session_.fork();
    for (const Owner owner : owners_) set_state(copy, owner, nullptr);
    for (const Owner owner : owners_)
      set_state(copy, owner, loaded_state(saved_state(session_, owner), copy, *empty(owner)));
    return copy;
  }
  const SequenceState* empty(Owner owner) const { return new_.sequence().state(owner); }
  void expect_same_states(const Session& other) const {
    for (const Owner owner : owners_) EXPECT_TRUE(saved_state(session_, owner) == saved_state(other, owner));
  }

  Session session_ = open_session(GetParam()), new_ = open_session(GetParam());
  std::vector<Owner> owners_;  // of the states that the methods have
};

TEST_P(MethodStates, ContinueBitIdenticallyAfterLoading) {
  read(300, 110);  // actqkv needs the entropies of 100 steps
  for (const Owner owner : owners_)
    EXPECT_FALSE(saved_state(session_, owner) == saved_state(new_, owner)) << "the state is empty";
  Session other = reopened();
  expect_same_states(other);
  const auto read_both = [&](int64_t text, int64_t single) {
    for (Session* one : {&session_, &other}) {
      if (text > 0) one->append(test::tokens(text, 7));
      test::steps(*one, test::tokens(single, 9));
    }
    ASSERT_EQ(test::logits_of(session_), test::logits_of(other));
    expect_same_states(other);
  };
  const auto rewind_both = [&](int64_t n) {
    for (Session* one : {&session_, &other}) one->rewind(n);
    expect_same_states(other);
  };
  for (int i = 0; i < 9; ++i) ASSERT_NO_FATAL_FAILURE(read_both(0, 1)) << i;
  ASSERT_NO_FATAL_FAILURE(read_both(150, 5));
  rewind_both(3);
  ASSERT_NO_FATAL_FAILURE(read_both(0, 4));
  rewind_both(170);
  ASSERT_NO_FATAL_FAILURE(read_both(70, 4));
  for (Session* one : {&session_, &other}) one->move_to(40);
  Session moved = reopened();  // a state is saved between the move and the next pass
  ASSERT_NO_FATAL_FAILURE(read_both(0, 5));
  test::steps(moved, test::tokens(5, 9));
  EXPECT_EQ(test::logits_of(session_), test::logits_of(moved));
  expect_same_states(moved);
}

TEST_P(MethodStates, CountTheBytesThatGrowWithTheTokens) {
  read(300);
  std::vector<size_t> before;
  for (const Owner owner : owners_) before.push_back(saved_state(session_, owner).size());
  constexpr size_t kMore = 900;
  session_.append(test::tokens(kMore, 6));
  test::steps(session_, test::tokens(8, 4));
  for (size_t i = 0; i < owners_.size(); ++i) {
    const size_t saved = saved_state(session_, owners_[i]).size();
    if (saved < before[i] + 8 * kMore) continue;  // grows by less than a byte per token, layer and head
    EXPECT_GE(session_.sequence().state(owners_[i])->bytes(), saved / 2);
  }
}

TEST_P(MethodStates, ContinueBitIdenticallyAfterLoadingAndARewind) {
  for (const int64_t n : {1, 9, 80, 250}) {
    session_ = open_session(GetParam());
    owners_.clear();
    read(300);
    Session other = reopened();
    for (Session* one : {&session_, &other}) {
      one->rewind(n);
      test::steps(*one, test::tokens(4, 3));
    }
    ASSERT_EQ(test::logits_of(session_), test::logits_of(other)) << n;
    expect_same_states(other);
    session_.rewind(
        std::min<int64_t>(n, session_.length() - 1));  // a state is saved between the rewind and the next pass
    Session third = reopened();
    for (Session* one : {&session_, &third}) test::steps(*one, test::tokens(4, 11));
    ASSERT_EQ(test::logits_of(session_), test::logits_of(third)) << n;
    expect_same_states(third);
  }
}

TEST(MethodStatesWithoutAttention, AreLoaded) {
  const std::string path = test::golden("architectures/tiny-mamba-f16.gguf");
  FATHOM_NEEDS(path);
  const auto engine = std::make_shared<Engine>(Model::open(path), test::runtime());
  for (const std::string& name : attend_methods().names_with(&Capabilities::works_on_recurrent)) {
    SCOPED_TRACE(name);
    const std::string attend = small_spec(attend_methods().find(parse_spec(name)).info);
    if (name == "softplus") continue;  // needs a model that was trained with it
    Session session(engine, {.attend = attend}), other(engine, {.attend = attend});
    const SequenceState* empty = other.sequence().state(Owner::kSelector);
    session.append(test::tokens(40));
    if (!empty) continue;
    const std::vector<std::byte> bytes = saved_state(session, Owner::kSelector);
    set_state(session, Owner::kSelector, loaded_state(bytes, session, *empty));
    EXPECT_TRUE(saved_state(session, Owner::kSelector) == bytes);
    test::steps(session, test::tokens(3));
  }
}

/// Changes some bytes at a random position, or removes the last ones.
void alter(std::vector<std::byte>& bytes, std::mt19937_64& random) {
  const auto up_to = [&](uint64_t most) { return random() % (most + 1); };
  size_t at = up_to(bytes.size() - 1);
  if (random() % 2) at = std::min<size_t>(at, up_to(200));  // the first bytes hold few keys and queries
  if (random() % 8 == 0) return bytes.resize(at);
  if (random() % 2) {
    bytes[at] ^= static_cast<std::byte>(1u << random() % 8);
    return;
  }
  constexpr uint64_t kNumbers[] = {0,       1,          63,         64,         65,    300,   311,
                                   1 << 20, 1ull << 31, 1ull << 39, 1ull << 62, ~0ull, ~62ull};
  const uint64_t number = kNumbers[up_to(std::size(kNumbers) - 1)];
  std::memcpy(bytes.data() + at, &number, std::min<size_t>(bytes.size() - at, random() % 2 ? 8 : 4));
}

TEST_P(MethodStates, AlteredBytesAreRefusedOrSafe) {
  read(180);
  std::mt19937_64 random(test::seed(1));
  for (const Owner owner : owners_) {
    const std::vector<std::byte> bytes = saved_state(session_, owner);
    for (int i = 0; i < 300; ++i) {
      const size_t kept = random() % bytes.size();
      EXPECT_THROW(loaded_state(std::span(bytes).first(kept), session_, *empty(owner)), Error) << kept;
    }
    int refused = 0;
    for (int i = 0; i < 2000; ++i) {
      std::vector<std::byte> altered = bytes;
      alter(altered, random);
      std::unique_ptr<SequenceState> state;
      try {
        state = loaded_state(altered, session_, *empty(owner));
      } catch (const Error& error) {
        ++refused;
        ASSERT_TRUE(std::string(error.what()).starts_with("the saved state: ")) << error.what();
        continue;
      }
      if (random() % 4) continue;
      Session copy = session_.fork();
      set_state(copy, owner, std::move(state));
      test::steps(copy, {17});
      if (random() % 4) continue;
      copy.rewind(static_cast<int64_t>(random() % 100));
      copy.append(test::tokens(20));
    }
    EXPECT_GT(refused, 20);
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, MethodStates, testing::ValuesIn(method_cases()), [](const auto& param) {
  std::string name = std::to_string(param.index) + "_" + param.param.attend + "_" + param.param.evict;
  std::ranges::replace_if(
      name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

}  // namespace
}  // namespace fathom
