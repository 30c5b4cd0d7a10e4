#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "base/error.h"
#include "base/spec.h"
#include "seed.h"

namespace fathom {
namespace {

using Type = Parameter::Type;

std::vector<Parameter> parameters() {
  return {
      {.name = "topk", .type = Type::kInt, .default_value = "16", .min = 1, .max = 4096},
      {.name = "window", .type = Type::kInt, .default_value = "4k", .min = 0},
      {.name = "offset", .type = Type::kInt, .max = 10},
      {.name = "factor", .type = Type::kFloat, .default_value = "0.5", .min = 0, .max = 1.5},
      {.name = "free", .type = Type::kFloat},
      {.name = "sink", .type = Type::kBool, .default_value = "yes"},
      {.name = "file", .type = Type::kString},
      {.name = "mode", .type = Type::kChoice, .default_value = "mean", .choices = {"mean", "max"}},
      {.name = "else", .type = Type::kSpec, .default_value = "dense"},
  };
}

Values values(const std::string& text) { return check_values(parse_spec("m:" + text), parameters()); }

std::string values_error(const std::string& text) {
  try {
    values(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  ADD_FAILURE() << "no error for " << text;
  return "";
}

TEST(Values, MissingValuesTakeDefaults) {
  const Values checked = check_values(parse_spec("m"), parameters());
  EXPECT_EQ(checked.integer("topk"), 16);
  EXPECT_EQ(checked.integer("window"), 4096);
  EXPECT_EQ(checked.number("factor"), 0.5);
  EXPECT_TRUE(checked.boolean("sink"));
  EXPECT_EQ(checked.string("mode"), "mean");
  EXPECT_EQ(checked.string("else"), "dense");
  EXPECT_FALSE(checked.has("offset"));
  EXPECT_FALSE(checked.has("file"));
  EXPECT_TRUE(checked.has("topk"));
}

TEST(Values, GivenValuesReplaceDefaults) {
  const Values checked = values("topk=4k,offset=-2k,factor=1e-1,sink=off,file=,mode=max,else=(window:window=1k)");
  EXPECT_EQ(checked.integer("topk"), 4096);
  EXPECT_EQ(checked.integer("offset"), -2048);
  EXPECT_EQ(checked.number("factor"), 0.1);
  EXPECT_FALSE(checked.boolean("sink"));
  EXPECT_TRUE(checked.has("file"));
  EXPECT_EQ(checked.string("file"), "");
  EXPECT_EQ(checked.string("mode"), "max");
  EXPECT_EQ(checked.string("else"), "window:window=1k");
}

TEST(Values, RangesIncludeTheirBounds) {
  EXPECT_EQ(values("topk=1").integer("topk"), 1);
  EXPECT_EQ(values("topk=4096").integer("topk"), 4096);
  EXPECT_EQ(values("factor=1.5").number("factor"), 1.5);
  EXPECT_EQ(values_error("topk=0"), "'m': topk must be an integer from 1 to 4096, found '0'");
  EXPECT_EQ(values_error("topk=4097"), "'m': topk must be an integer from 1 to 4096, found '4097'");
  EXPECT_EQ(values_error("window=-1"), "'m': window must be an integer of at least 0, found '-1'");
  EXPECT_EQ(values_error("offset=11"), "'m': offset must be an integer of at most 10, found '11'");
  EXPECT_EQ(values_error("factor=1.6"), "'m': factor must be a finite number from 0 to 1.5, found '1.6'");
}

TEST(Values, NonIntegersAndOverflowAreErrors) {
  for (const char* bad : {"", "x", "1.5", "1e3", "4kk", "--1", "-", "0x10", "9223372036854775808"}) {
    values_error("window=" + std::string(bad));
  }
  EXPECT_EQ(values("window=9223372036854775807").integer("window"), std::numeric_limits<int64_t>::max());
}

TEST(Values, NonFiniteNumbersAreErrors) {
  EXPECT_EQ(values("free=-2.5e3").number("free"), -2500);
  for (const char* bad : {"", "nan", "inf", "-inf", "infinity", "1e999", "0x1p3", "1,5", "1.5x", "+1", "--1"}) {
    values_error("free=(" + std::string(bad) + ")");
  }
}

TEST(Values, BoolsAcceptEightWords) {
  for (const char* word : {"true", "1", "on", "yes", "TRUE"}) {
    EXPECT_TRUE(values("sink=" + std::string(word)).boolean("sink")) << word;
  }
  for (const char* word : {"false", "0", "off", "no", "Off"}) {
    EXPECT_FALSE(values("sink=" + std::string(word)).boolean("sink")) << word;
  }
  EXPECT_EQ(values_error("sink=2"), "'m': sink must be true or false, found '2'");
  values_error("sink=");
}

TEST(Values, InvalidChoiceErrorListsTheChoices) {
  EXPECT_EQ(values_error("mode=median"), "'m': mode must be one of mean, max, found 'median'");
  values_error("mode=");
}

TEST(Values, NestedSpecMustParse) {
  const std::string message = values_error("else=(window:size)");
  EXPECT_EQ(message, "'m': else: spec 'window:size', byte 7: expected key=value, found 'size'");
  values_error("else=");
}

TEST(Values, UnknownKeyErrorListsNearestAndAllKeys) {
  EXPECT_EQ(
      values_error("topkk=1"),
      "'m': unknown parameter 'topkk'; did you mean topk? Known: topk, window, offset, factor, free, sink, file, "
      "mode, else");
  EXPECT_EQ(values_error("quantum=1").find("did you mean"), std::string::npos);
  try {
    check_values(parse_spec("dense:a=1"), {});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "'dense' has no parameters, found 'a'");
  }
}

TEST(Values, OldValuesMapToNewOnes) {
  const std::vector<Parameter> with_old_names = {{.name = "positions",
                                                  .type = Parameter::Type::kChoice,
                                                  .default_value = "original",
                                                  .choices = {"original", "compacted"},
                                                  .old_names = {"place"},
                                                  .old_values = {{"true", "original"}, {"packed", "compacted"}}}};
  const auto read = [&](const std::string& text) { return check_values(parse_spec(text), with_old_names); };
  EXPECT_EQ(read("m:place=packed").string("positions"), "compacted");
  EXPECT_EQ(read("m:place=packed").renamed()[0].old_text, "place=packed");
  EXPECT_EQ(read("m:place=packed").renamed()[0].text, "positions=compacted");
  EXPECT_EQ(read("m:positions=true").string("positions"), "original");
  EXPECT_TRUE(read("m:positions=compacted").renamed().empty());
  EXPECT_THROW(read("m:place=sideways"), Error);
}

TEST(Values, OldNamesAreAcceptedUnlessGivenTwice) {
  const std::vector<Parameter> with_old_names = {
      {.name = "window", .default_value = "4", .old_names = {"size", "local"}}};
  const auto read = [&](const std::string& text) { return check_values(parse_spec(text), with_old_names); };
  for (const std::string name : {"window", "size", "local"}) {
    const Values checked = read("m:" + name + "=1k");
    EXPECT_EQ(checked.integer("window"), 1024) << name;
    EXPECT_EQ(checked.renamed().size(), name == "window" ? 0 : 1) << name;
    EXPECT_FALSE(checked.has("size")) << name;
  }
  EXPECT_EQ(read("m:size=7").renamed()[0].old_text, "size");
  EXPECT_EQ(read("m:size=7").renamed()[0].text, "window");
  for (const char* twice : {"m:size=1,window=2", "m:window=2,local=2", "m:size=1,local=1"}) {
    try {
      read(twice);
      ADD_FAILURE() << twice;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kUsage);
      EXPECT_STREQ(error.what(), "'m': window is given twice: size, local are its old names");
    }
  }
}

TEST(Values, InvalidDefaultIsAnError) {
  const Parameter wrong{.name = "topk", .type = Type::kInt, .default_value = "0", .min = 1};
  EXPECT_THROW(check_values(parse_spec("m"), {wrong}), Error);
}

TEST(Values, AbsentAndWrongTypedValuesAreErrors) {
  const Values checked = values("file=abc");
  EXPECT_THROW(checked.integer("offset"), Error);
  EXPECT_THROW(checked.string("nothing"), Error);
  EXPECT_THROW(checked.integer("file"), Error);
  EXPECT_THROW(checked.number("file"), Error);
  EXPECT_THROW(checked.boolean("file"), Error);
}

TEST(Values, RandomValuesAreRejectedOrConvert) {
  std::mt19937_64 random(test::seed(1));
  const std::string alphabet = "0123456789.-+ekmgtruefalsinfn";
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (uint64_t length = random() % 6; length > 0; --length) text += alphabet[random() % alphabet.size()];
    for (const Parameter& parameter : parameters()) {
      try {
        const Values checked = check_values({"m", {{parameter.name, text}}}, parameters());
        if (parameter.type == Type::kInt) checked.integer(parameter.name);
        if (parameter.type == Type::kFloat) {
          ASSERT_TRUE(std::isfinite(checked.number(parameter.name)));
        }
        if (parameter.type == Type::kBool) checked.boolean(parameter.name);
        ++accepted;
      } catch (const Error& error) {
        ASSERT_EQ(error.kind(), Error::Kind::kUsage) << text;
      }
    }
  }
  EXPECT_GT(accepted, 1000);
}

TEST(Values, EveryTypeHasAName) {
  EXPECT_STREQ(name(Type::kInt), "int");
  EXPECT_STREQ(name(Type::kFloat), "float");
  EXPECT_STREQ(name(Type::kBool), "bool");
  EXPECT_STREQ(name(Type::kString), "string");
  EXPECT_STREQ(name(Type::kChoice), "choice");
  EXPECT_STREQ(name(Type::kSpec), "spec");
}

}  // namespace
}  // namespace fathom
