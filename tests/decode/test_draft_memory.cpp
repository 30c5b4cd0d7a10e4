#include "decode/draft_memory.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "decode/drafter.h"
#include "decode/generate.h"
#include "default_model.h"

namespace fathom {
namespace {

using test::loaded;

constexpr const char* kPrompt = "The door code of Anna is 4711. The door code of Peter is";

/// Continues the prompt greedily. Drafts have a fixed number of nodes, so that no decision depends on time.
Generated continue_text(const std::string& method, DraftMemory* memory) {
  const std::vector<int32_t> prompt = loaded().tokenizer.encode(kPrompt);
  Session session = test::read(kPrompt);
  Drafter drafter({{method}, 8}, {loaded().model, loaded().runtime, &loaded().tokenizer, &session, memory});
  Sampler greedy;
  GenerateOptions options;
  options.max_tokens = 48;
  return generate(session, loaded().tokenizer, greedy, prompt, options, nullptr, &drafter);
}

TEST(DraftMemory, GivesALaterTextWhatAnEarlierOneLearned) {
  for (const std::string method : {"recycle", "auto"}) {
    DraftMemory memory;
    const Generated alone = continue_text(method, nullptr), first = continue_text(method, &memory),
                    second = continue_text(method, &memory);
    EXPECT_EQ(first.forwards, alone.forwards) << method;  // nothing was learned before
    EXPECT_LT(second.forwards, first.forwards) << method;
    EXPECT_EQ(second.tokens, alone.tokens) << method;
    EXPECT_EQ(continue_text(method, nullptr).forwards, alone.forwards) << method;
  }
}

TEST(DraftMemory, KeepsMethodsApart) {
  DraftMemory memory;
  const Generated alone = continue_text("suffix:depth=8", nullptr);
  continue_text("recycle", &memory);
  const Generated other = continue_text("suffix:depth=8", &memory);
  EXPECT_EQ(other.forwards, alone.forwards);
  EXPECT_EQ(other.tokens, alone.tokens);
}

TEST(DraftMemory, IsBounded) {
  DraftMemory memory;
  for (int i = 0; i < 100; ++i) memory.store(std::to_string(i), {DraftBudget(), nullptr});
  int kept = 0;
  for (int i = 0; i < 100; ++i) kept += memory.find(std::to_string(i)).has_value();
  EXPECT_LE(kept, 16);
  EXPECT_TRUE(memory.find("99"));
}

}  // namespace
}  // namespace fathom
