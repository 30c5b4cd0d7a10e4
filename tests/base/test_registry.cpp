#include "base/registry.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

using Table = MethodTable<std::string(const Values&, int)>;

Table table() {
  const Parameter topk{
      .name = "topk", .type = Parameter::Type::kInt, .default_value = "16", .min = 1, .old_names = {"blocks"}};
  return Table("attend", {{{.name = "dense"}, [](const Values&, int) { return std::string("all"); }},
                          {{.name = "infllm", .parameters = {topk}}, [](const Values& values, int context) {
                             return concat(values.integer("topk"), " of ", context);
                           }}});
}

template <class Action>
std::string usage_error(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

TEST(MethodTable, MakesTheNamedMethodWithItsValues) {
  EXPECT_EQ(table().make("dense", 7), "all");
  EXPECT_EQ(table().make("infllm", 7), "16 of 7");
  EXPECT_EQ(table().make("infllm:topk=1k", 7), "1024 of 7");
}

TEST(MethodTable, PrintsANoteForAnOldNameOnce) {
  const Table methods = table();
  testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(methods.make("infllm:blocks=4", 7), "4 of 7");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "fathom: --attend infllm: 'blocks' is now 'topk'\n");
}

TEST(MethodTable, EntriesHaveTheirKind) {
  for (const MethodInfo& info : table().infos()) EXPECT_EQ(info.kind, "attend");
  EXPECT_EQ(table().infos().size(), 2u);
}

TEST(MethodTable, UnknownNameErrorListsNearestAndAllNames) {
  EXPECT_EQ(usage_error([] { table().make("inflm", 7); }),
            "unknown attend method 'inflm'; did you mean infllm? Known: dense, infllm");
  EXPECT_EQ(usage_error([] { table().make("quantum", 7); }),
            "unknown attend method 'quantum'. Known: dense, infllm");
  EXPECT_EQ(usage_error([] { fail_unknown_method("cache", "x", {}); }), "unknown cache method 'x'. Known: none");
}

TEST(MethodTable, LongNameIsCutAndEscaped) {
  const std::string message =
      usage_error([] { fail_unknown_method("attend", std::string(1 << 20, '\n'), {"dense"}); });
  EXPECT_LT(message.size(), 400u);
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST(MethodTable, UnknownParameterIsAUsageError) {
  EXPECT_EQ(usage_error([] { table().make("infllm:top=3", 7); }),
            "'infllm': unknown parameter 'top'; did you mean topk? Known: topk");
}

}  // namespace
}  // namespace fathom
