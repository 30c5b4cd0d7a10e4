#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "base/json.h"

namespace fathom {
namespace {

std::string json_error(std::string_view text) {
  try {
    Json::parse(text);
  } catch (const JsonError& error) {
    return error.what();
  }
  return "";
}

TEST(Json, TextRoundTrips) {
  for (const char* text :
       {"null", "true", "-3", "18446744073709551615", "-9223372036854775808", "0.1", "1e+300", "\"\"",
        "\"\\\"\\\\\\n\\u0001é\"", "[]", "{}", "[1,[2,[]],{\"a\":null}]", "{\"b\":1,\"a\":{\"c\":[false]}}"})
    EXPECT_EQ(Json::parse(text).dump(), text);
}

TEST(Json, FieldsKeepTheirOrderAndTheLastDuplicateCounts) {
  EXPECT_EQ(Json::parse(R"({"z":1,"a":2,"z":3,"b":4,"a":5})").dump(), R"({"z":3,"a":5,"b":4})");
}

TEST(Json, ListsOfPairsThatBeginWithStringsAreObjects) {
  EXPECT_EQ((Json{{"a", 1}, {"b", {{"c", true}}}}).dump(), R"({"a":1,"b":{"c":true}})");
  EXPECT_EQ((Json{{"a", 1}, {2, "b"}}).dump(), R"([["a",1],[2,"b"]])");
  EXPECT_EQ((Json{"a", "b", "c"}).dump(), R"(["a","b","c"])");
  EXPECT_EQ(Json::array({"a", 1}).dump(), R"(["a",1])");
}

TEST(Json, IndentsByLevel) {
  EXPECT_EQ(Json::parse(R"({"a":[1,2],"b":{},"c":[]})").dump(2),
            "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": {},\n  \"c\": []\n}");
}

TEST(Json, InvalidUtf8IsReplacedAndNonFiniteNumbersAreNull) {
  EXPECT_EQ(Json("a\xff").dump(), "\"a\xEF\xBF\xBD\"");
  EXPECT_EQ((Json{std::nan(""), std::numeric_limits<double>::infinity(), 0.5}).dump(), "[null,null,0.5]");
}

TEST(Json, ErrorsNameLineAndColumn) {
  EXPECT_NE(json_error("{\n\"a\": nul}").find("line 2, column 9"), std::string::npos)
      << json_error("{\n\"a\": nul}");
  for (const char* text : {"", " ", "[1,]", "{\"a\"}", "[1] 2", "\"\x01\"", "\"\xff\"", "01", "[", "{\"a\":1,}"}) {
    EXPECT_NE(json_error(text), "") << text;
    EXPECT_TRUE(Json::parse_or_null(text).is_null()) << text;
  }
}

TEST(Json, NestingBeyondTheLimitIsAnError) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(json_error(nested(Json::kMaxDepth)), "");
  EXPECT_NE(json_error(nested(Json::kMaxDepth + 1)).find("nested deeper"), std::string::npos);
  EXPECT_NE(json_error(std::string(1'000'000, '[')).find("nested deeper"), std::string::npos);
}

TEST(Json, ManyDuplicateFieldsAreParsed) {
  std::string text = "{\"0\":0";
  for (int i = 1; i < 200'000; ++i) text += ",\"" + std::to_string(i % 70'000) + "\":" + std::to_string(i);
  EXPECT_EQ(Json::parse(text + "}").size(), 70'000u);
}

TEST(Json, ItemsOfAnArrayAreVisitedOneByOne) {
  std::string visited;
  Json::parse_items(R"([1,"a",[2,3],{"b":[4]}])", [&](const Json& item) { visited += item.dump() + ";"; });
  EXPECT_EQ(visited, R"(1;"a";[2,3];{"b":[4]};)");
  for (const char* text : {"[1, 2", "{\"a\": [1]}", "3"})
    EXPECT_THROW(Json::parse_items(text, [](const Json&) {}), JsonError) << text;
}

TEST(Json, WrongTypesAndAbsentFieldsAreErrors) {
  const Json json = Json::parse(R"({"text":"a","number":2.75,"large":1e300,"list":[1,2]})");
  EXPECT_EQ(json["number"].get<int>(), 2);
  EXPECT_EQ(json["list"].get<std::vector<double>>(), (std::vector<double>{1, 2}));
  EXPECT_EQ(json.value("absent", 7), 7);
  EXPECT_EQ(json.value("text", "b"), "a");
  EXPECT_THROW(json["text"].get<int>(), JsonError);
  EXPECT_THROW(json["number"].get<bool>(), JsonError);
  EXPECT_THROW(json["large"].get<int64_t>(), JsonError);
  EXPECT_THROW(json["list"].text(), JsonError);
  EXPECT_THROW(json["list"][2], JsonError);
  EXPECT_THROW(json["absent"], JsonError);
  EXPECT_THROW(json.at("list").at("a"), JsonError);
  EXPECT_THROW(json["text"].fields(), JsonError);
}

TEST(Json, NumbersCompareByValueAcrossTypes) {
  EXPECT_EQ(Json(3), Json(3u));
  EXPECT_EQ(Json(3), Json(3.0));
  EXPECT_FALSE(Json(-1) == Json(std::numeric_limits<uint64_t>::max()));
  EXPECT_FALSE(Json(1) == Json(true));
}

}  // namespace
}  // namespace fathom
