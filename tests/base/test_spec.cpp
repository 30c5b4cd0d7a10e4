#include "base/spec.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "seed.h"

namespace fathom {
namespace {

using KeyValues = std::vector<std::pair<std::string, std::string>>;

/// Returns the text of the usage error that `action` throws.
template <class Action>
std::string spec_usage_error(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

std::string parse_error(std::string_view text) {
  return spec_usage_error([&] { parse_spec(text); });
}

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

TEST(Spec, NameAlone) {
  const Spec spec = parse_spec("dense");
  EXPECT_EQ(spec.name, "dense");
  EXPECT_TRUE(spec.values.empty());
}

TEST(Spec, ValuesKeepTheirOrderWithoutSurroundingSpaces) {
  const Spec spec = parse_spec("  infllm : window = 4k ,topk=16 ");
  EXPECT_EQ(spec.name, "infllm");
  EXPECT_EQ(spec.values, (KeyValues{{"window", "4k"}, {"topk", "16"}}));
}

TEST(Spec, ParenthesesMayContainCommasAndSpecs) {
  const Spec spec = parse_spec("layers:full=0+4,else=(window:sink=4,window=1k),list=(1,2)");
  EXPECT_EQ(spec.values, (KeyValues{{"full", "0+4"}, {"else", "window:sink=4,window=1k"}, {"list", "1,2"}}));
  EXPECT_EQ(parse_spec(spec.values[1].second).name, "window");
}

TEST(Spec, OnlyTheOuterPairOfParenthesesIsRemoved) {
  EXPECT_EQ(parse_spec("a:b=((x))").values[0].second, "(x)");
  EXPECT_EQ(parse_spec("a:b=(x)(y)").values[0].second, "(x)(y)");
  EXPECT_EQ(parse_spec("a:b=f(x,y)").values[0].second, "f(x,y)");
  EXPECT_EQ(parse_spec("a:b=( x )").values[0].second, "x");
}

TEST(Spec, ValuesMayContainColonsAndEqualsSignsOrBeEmpty) {
  EXPECT_EQ(parse_spec("a:file=c:/x=y,stop=").values, (KeyValues{{"file", "c:/x=y"}, {"stop", ""}}));
}

TEST(Spec, TextParsesBackToTheSameSpec) {
  for (const char* text : {"dense", "a:b=c", "a:b=(c,d),e=", "a:b=((x))", "a:b=(x)(y)", "a:b=()", "a:b=(())",
                           "a:b= c d ", "layers:full=0+4,else=(window:sink=4,window=(1,(2,3)))"}) {
    const Spec spec = parse_spec(text);
    const Spec again = parse_spec(spec.to_string());
    EXPECT_EQ(again.name, spec.name) << text;
    EXPECT_EQ(again.values, spec.values) << text << " is printed as " << spec.to_string();
    EXPECT_EQ(again.to_string(), spec.to_string());
  }
}

TEST(Spec, MalformedTextErrorsGiveThePosition) {
  expect_contains(parse_error(""), "expected the method's name");
  expect_contains(parse_error(" :a=1"), "expected the method's name");
  expect_contains(parse_error("infllm:topk"), "spec 'infllm:topk', byte 7: expected key=value, found 'topk'");
  expect_contains(parse_error("infllm:"), "byte 7: expected key=value");
  expect_contains(parse_error("infllm:a=1,"), "byte 11: expected key=value");
  expect_contains(parse_error("infllm:=1"), "byte 7: expected a parameter's name");
  expect_contains(parse_error("infllm:a=1,b=2,a=3"), "byte 15: parameter 'a' is given twice");
  expect_contains(parse_error("infllm:a=(1"), "byte 9: '(' is never closed");
  expect_contains(parse_error("infllm:a=1)"), "byte 10: ')' without '('");
  expect_contains(parse_error("infllm:a=)("), "byte 9: ')' without '('");
  expect_contains(parse_error("in(f)llm"), "byte 2: unexpected '('");
  expect_contains(parse_error("a,b"), "byte 1: unexpected ','");
  expect_contains(parse_error("a:b:c=1"), "byte 3: unexpected ':'");
}

TEST(Spec, ControlCharactersAreErrorsAndShownEscaped) {
  expect_contains(parse_error(std::string_view("a:b=\0c", 6)), "spec 'a:b=\\x00c', byte 4: control character 0");
  expect_contains(parse_error("a\n"), "byte 1: control character 10");
  expect_contains(parse_error("a:b=\x7f"), "control character 127");
}

TEST(Spec, HugeTextIsAnErrorWithAShortMessage) {
  const std::string message = parse_error("a:b=" + std::string(1 << 20, 'x'));
  expect_contains(message, "longer than 64 KiB (1048580 bytes)");
  EXPECT_LT(message.size(), 200u);
  EXPECT_EQ(parse_spec("a:b=" + std::string(65532, 'x')).values[0].second.size(), 65532u);
  parse_error("a:b=" + std::string(65533, 'x'));
}

TEST(Spec, ManyKeysAndDeepNestingAreParsed) {
  std::string text = "a:";
  for (int i = 0; i < 8000; ++i) text += (i ? ",k" : "k") + std::to_string(i) + "=";
  EXPECT_EQ(parse_spec(text).values.size(), 8000u);

  std::string value = "b";
  for (int depth = 0; depth < 1000; ++depth) value = "a:b=(" + value + ")";
  for (int depth = 0; depth < 1000; ++depth) value = parse_spec(value).values.at(0).second;
  EXPECT_EQ(value, "b");
  EXPECT_EQ(parse_spec("a:b=" + std::string(30000, '(') + std::string(30000, ')')).values[0].second.size(), 59998u);
  parse_error("a:b=" + std::string(60000, '('));
}

TEST(Spec, MutatedTextEitherParsesAndRoundTripsOrIsAUsageError) {
  std::mt19937_64 random(test::seed(1));
  const std::string original = "layers:full=0+4,else=(window:sink=4,window=1k),x=((a)(b))";
  const std::string alphabet = "(),:= ab0\n";
  int parsed = 0, rejected = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text = original;
    for (uint64_t change = random() % 4 + 1; change > 0; --change) {
      const size_t at = random() % text.size();
      const char c = random() % 8 ? alphabet[random() % alphabet.size()] : static_cast<char>(random());
      if (random() % 3 == 0)
        text.erase(at, 1 + random() % 4);
      else if (random() % 2)
        text.insert(at, 1, c);
      else
        text[at] = c;
      if (text.empty()) text = "a";
    }
    try {
      const Spec spec = parse_spec(text);
      const Spec again = parse_spec(spec.to_string());
      ASSERT_EQ(again.name, spec.name) << text;
      ASSERT_EQ(again.values, spec.values) << text;
      ++parsed;
    } catch (const Error& error) {
      ASSERT_EQ(error.kind(), Error::Kind::kUsage) << text;
      ++rejected;
    }
  }
  EXPECT_GT(parsed, 1000);
  EXPECT_GT(rejected, 1000);
}

TEST(ParseSize, SuffixesAreBinaryMultiples) {
  EXPECT_EQ(parse_size("0"), 0);
  EXPECT_EQ(parse_size("4k"), 4096);
  EXPECT_EQ(parse_size("4K"), 4096);
  EXPECT_EQ(parse_size("1m"), 1048576);
  EXPECT_EQ(parse_size("2G"), int64_t{2} << 30);
  EXPECT_EQ(parse_size("9223372036854775807"), INT64_MAX);
}

TEST(ParseSize, InvalidTextAndOverflowAreRejected) {
  for (const char* text :
       {"", "k", "-1", "+1", " 1", "1 ", "1kk", "1x", "k1", "0x10", "1.5k", "9223372036854775808",
        "99999999999999999999999", "9007199254740992k", "8796093022208m", "8589934592g"}) {
    EXPECT_EQ(parse_size(text), std::nullopt) << text;
  }
  EXPECT_EQ(parse_size("9007199254740991k"), INT64_MAX - 1023);
  EXPECT_EQ(parse_size(std::string_view("1\0", 2)), std::nullopt);
  EXPECT_EQ(parse_size(std::string(1 << 20, '9')), std::nullopt);
}

using NameList = std::vector<std::string>;

TEST(NearestNames, TypingErrorsAreFoundBestFirst) {
  const NameList known = {"dense", "window", "infllm", "tokenselect", "hip"};
  EXPECT_EQ(nearest_names("infllmm", known), NameList{"infllm"});
  EXPECT_EQ(nearest_names("ifnllm", known), NameList{"infllm"});
  EXPECT_EQ(nearest_names("Dense", known), NameList{"dense"});
  EXPECT_EQ(nearest_names("widnwo", known), NameList{"window"});
  EXPECT_EQ(nearest_names("token", known), NameList{"tokenselect"});
  EXPECT_EQ(nearest_names("xk", {"topk", "k", "xk1", "xk"}), (NameList{"xk", "xk1"}));
}

TEST(NearestNames, TiesAreOrderedByCommonPrefix) {
  EXPECT_EQ(nearest_names("topx", {"xopx", "topk", "topp"}), (NameList{"topk", "topp", "xopx"}));
  EXPECT_EQ(nearest_names("topx", {"xopx", "topk", "topp"}, 1), NameList{"topk"});
}

TEST(NearestNames, DistantAndHugeNamesAreOmitted) {
  const NameList known = {"dense", "window", "k"};
  EXPECT_TRUE(nearest_names("quantum", known).empty());
  EXPECT_TRUE(nearest_names("", known).empty());
  EXPECT_TRUE(nearest_names("x", known).empty());
  EXPECT_TRUE(nearest_names(std::string(1 << 20, 'd'), known).empty());
  EXPECT_TRUE(nearest_names("dense", {}).empty());
}

}  // namespace
}  // namespace fathom
