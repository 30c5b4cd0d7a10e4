// JSON schemas as grammars: texts that they accept and refuse, and random texts against a validator.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>

#include "base/error.h"
#include "base/utf8.h"
#include "byte_vocabulary.h"
#include "decode/constraints/grammars.h"
#include "decode/grammar/automaton.h"
#include "decode/grammar/json_schema.h"
#include "default_model.h"
#include "seed.h"

namespace fathom {
namespace {

using test::allowed_tokens;
using test::byte_tokenizer;

Grammar grammar_of(const std::string& schema, const JsonLayout& layout = {}) {
  return json_schema_grammar(Json::parse(schema), "schema", layout);
}

bool accepts(Grammar grammar, const std::string& text) {
  static const std::shared_ptr<const Tokenizer> tokenizer = byte_tokenizer({});
  GrammarAutomaton automaton(std::make_shared<const TokenBytes>(*tokenizer),
                             std::make_shared<const Grammar>(std::move(grammar)));
  const GrammarAutomaton::State state = automaton.step(automaton.start(), text);
  return state != GrammarAutomaton::kDead && automaton.may_end(state);
}

int64_t characters_of(std::string_view text) {
  int64_t count = 0;
  for (; !text.empty(); text.remove_prefix(utf8_length(text))) ++count;
  return count;
}

/// A small validator of the keywords that the samples use, but for patterns and formats.
bool valid(const Json& schema, const Json& value, const Json& root) {
  if (schema == Json(true)) return true;
  if (schema == Json(false)) return false;
  const auto all = [&](const Json& list, const auto& check) { return std::ranges::all_of(list.items(), check); };
  if (const Json* ref = schema.find("$ref")) {
    const Json* target = &root;
    std::string path = ref->text().substr(1);
    while (!path.empty()) {
      const size_t end = std::min(path.find('/', 1), path.size());
      target = &target->at(path.substr(1, end - 1));
      path = path.substr(end);
    }
    if (!valid(*target, value, root)) return false;
  }
  if (const Json* type = schema.find("type")) {
    const auto has = [&](const Json& one) {
      const std::string& name = one.text();
      if (name == "object") return value.is_object();
      if (name == "array") return value.is_array();
      if (name == "string") return value.is_string();
      if (name == "number") return value.is_number();
      if (name == "boolean") return value.is_boolean();
      if (name == "null") return value.is_null();
      return value.is_number() && std::trunc(value.get<double>()) == value.get<double>();
    };
    if (type->is_array() ? std::ranges::none_of(type->items(), has) : !has(*type)) return false;
  }
  if (const Json* one = schema.find("const"); one && !(*one == value)) return false;
  if (const Json* list = schema.find("enum");
      list && std::ranges::find(list->items(), value) == list->items().end())
    return false;
  if (const Json* parts = schema.find("allOf");
      parts && !all(*parts, [&](const Json& part) { return valid(part, value, root); }))
    return false;
  for (const char* word : {"anyOf", "oneOf"}) {
    const Json* parts = schema.find(word);
    if (!parts) continue;
    const auto matching =
        std::ranges::count_if(parts->items(), [&](const Json& part) { return valid(part, value, root); });
    if (matching == 0 || (std::string_view(word) == "oneOf" && matching != 1)) return false;
  }
  if (value.is_string()) {
    const int64_t length = characters_of(value.text());
    if (length < schema.value("minLength", int64_t{0}) || length > schema.value("maxLength", int64_t{1} << 40))
      return false;
  }
  if (value.is_number()) {
    const auto x = value.get<double>();
    if (x < schema.value("minimum", -1e300) || x > schema.value("maximum", 1e300)) return false;
    if (x <= schema.value("exclusiveMinimum", -1e300) || x >= schema.value("exclusiveMaximum", 1e300)) return false;
  }
  if (value.is_array()) {
    const int64_t size = std::ssize(value.items());
    if (size < schema.value("minItems", int64_t{0}) || size > schema.value("maxItems", int64_t{1} << 40))
      return false;
    const Json* prefix = schema.find("prefixItems");
    for (size_t i = 0; i < value.size(); ++i) {
      const Json* items = schema.find("items");
      const Json* own = prefix && i < prefix->size() ? &prefix->at(i) : items;
      if (own && !valid(*own, value.at(i), root)) return false;
    }
  }
  if (value.is_object()) {
    const Json* properties = schema.find("properties");
    if (const Json* required = schema.find("required"))
      if (!all(*required, [&](const Json& name) { return value.contains(name.text()); })) return false;
    for (const auto& [name, item] : value.fields()) {
      const Json* own = properties ? properties->find(name) : nullptr;
      if (!own) own = schema.find("additionalProperties");
      if (own && !valid(*own, item, root)) return false;
    }
  }
  return true;
}

const std::vector<std::string>& samples() {
  static const std::vector<std::string> all = {
      R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": -17, "maximum": 305}}, "required": ["name"]})",
      R"({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}, "c": {"enum": [1, "x", null, {"y": [2]}]}}, "required": ["b"], "additionalProperties": false})",
      R"({"type": "array", "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 2.5}, "minItems": 1, "maxItems": 4})",
      R"({"type": "array", "prefixItems": [{"const": "head"}, {"type": "integer"}], "items": {"type": "boolean"}, "minItems": 2, "maxItems": 5})",
      R"({"type": "array", "prefixItems": [{"type": "null"}, {"type": "null"}, {"type": "null"}], "items": false, "minItems": 1})",
      R"({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {"value": {"type": "integer"}, "left": {"$ref": "#/$defs/tree"}, "right": {"$ref": "#/$defs/tree"}}, "required": ["value"]}}})",
      R"({"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]})",
      R"({"anyOf": [{"type": "string", "minLength": 2, "maxLength": 4}, {"type": "integer", "exclusiveMaximum": -999}]})",
      R"({"oneOf": [{"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number"}}, "required": ["kind", "r"]}, {"type": "object", "properties": {"kind": {"const": "square"}, "side": {"type": "integer"}}, "required": ["kind", "side"]}]})",
      R"({"allOf": [{"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a"]}, {"properties": {"a": {"maximum": 7}, "b": {"type": "string", "maxLength": 3}}}]})",
      R"({"type": "object", "additionalProperties": {"type": "integer"}, "properties": {"id": {"type": "string", "maxLength": 2}, "i": {"type": "null"}}, "required": ["id"]})",
      R"({"type": ["string", "null", "integer"], "maxLength": 3, "minimum": 99, "maximum": 1001})",
      R"({"type": "object", "properties": {"é\"\\": {"const": "日\n"}, "": {"type": "boolean"}}, "required": ["é\"\\", ""]})",
      R"({"type": "integer", "minimum": 7, "maximum": 7})",
      R"({"type": "integer", "exclusiveMinimum": -1000, "exclusiveMaximum": -98})",
      R"({"type": "number", "minimum": -0.75, "exclusiveMaximum": 10.125})",
      R"({"type": "number", "minimum": 3, "maximum": 3})",
      R"({"type": "object", "required": ["x"]})",
      R"({"type": "array", "maxItems": 0})",
      R"({"type": "array", "items": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}, "maxItems": 3})",
      R"({"type": "object", "properties": {"never": false, "maybe": true}})",
      R"({"enum": ["a", "b", 3], "type": "string"})",
      R"({"type": "object", "properties": {"a": {"$ref": "#/definitions/s"}}, "definitions": {"s": {"type": "string", "enum": ["on", "off"]}}, "required": ["a"]})",
      R"({"allOf": [{"$ref": "#/$defs/base"}], "properties": {"extra": {"type": "boolean"}}, "required": ["extra"], "$defs": {"base": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}}})",
      R"(true)",
      R"({})"};
  return all;
}

/// Returns the text of random tokens, which ends soon: marks that close strings, lists and objects are favoured.
std::string random_text(const Tokenizer& tokenizer, const Constraint& constraint, std::mt19937& random) {
  const auto state = constraint.start();
  std::string text;
  for (int count = 0; count < 5000; ++count) {
    std::vector<int32_t> tokens = allowed_tokens(tokenizer, *state), closing;
    if (tokenizer.ends_generation(tokens.back()) && (tokens.size() <= 2 || random() % 4 == 0)) return text;
    std::erase_if(tokens, [&](int32_t id) { return tokenizer.ends_generation(id); });
    for (const int32_t id : tokens)
      if (const std::string& piece = tokenizer.piece(id);
          piece == "\"" || piece == "]" || piece == "}" || piece == "\"}")
        closing.push_back(id);
    const auto& from = !closing.empty() && random() % (count > 200 ? 1 : 6) == 0 ? closing : tokens;
    const int32_t token = from[random() % from.size()];
    state->take(token);
    text += tokenizer.piece(token);
  }
  return text;
}

TEST(JsonSchema, RandomTextsAreValid) {
  const std::shared_ptr<const Tokenizer> bytes =
      byte_tokenizer({"\":", "\"}", "{\"", "\\u", "d8", "\", \"", "},", "12", "true", "\xc3\xa9"});
  const auto vocabulary = std::make_shared<const TokenBytes>(*bytes);
  std::mt19937 random(test::seed(5));
  for (const std::string& sample : samples()) {
    SCOPED_TRACE(sample);
    const Json schema = Json::parse(sample);
    for (const JsonLayout layout : {JsonLayout{}, JsonLayout{.compact = true}}) {
      const auto constraint = make_grammar_constraint(vocabulary, json_schema_grammar(schema, "schema", layout));
      for (int i = 0; i < 12; ++i) {
        const std::string text = random_text(*bytes, *constraint, random);
        const Json value = Json::parse(text);
        ASSERT_TRUE(valid(schema, value, schema)) << text;
        ASSERT_EQ(value, Json::parse(value.dump())) << text;
      }
    }
  }
}

TEST(JsonSchema, RealVocabulariesSpellIt) {
  const Tokenizer& tokenizer = test::loaded().tokenizer;
  const auto vocabulary = std::make_shared<const TokenBytes>(tokenizer);
  std::mt19937 random(test::seed(6));
  for (size_t i = 0; i < samples().size(); i += 3) {
    const Json schema = Json::parse(samples()[i]);
    const auto constraint = make_grammar_constraint(vocabulary, json_schema_grammar(schema, "schema"));
    const std::string text = random_text(tokenizer, *constraint, random);
    EXPECT_TRUE(valid(schema, Json::parse(text), schema)) << text;
  }
}

struct TextsOfASchema {
  const char* schema;
  std::vector<std::string> accepted, refused;
};

TEST(JsonSchema, AcceptsItsTextsAndNoOthers) {
  const std::vector<TextsOfASchema> all = {
      {R"({"type": "string"})",
       {R"("")", R"("\u00e9\n\/")", R"("\ud83d\ude00")", "\"\xe6\x97\xa5\""},
       {R"("a)", R"("\ud83d")", R"("\x")", "\"\n\"", "\"\xff\""}},
      {R"({"type": "string", "minLength": 1, "maxLength": 2})",
       {R"("a")", R"("\ud83d\ude00\"")"},
       {R"("")", R"("abc")"}},
      {R"({"type": "string", "pattern": "^[a-c]+\\d{2}$"})", {R"("ab12")"}, {R"("12")", R"("ab1")", R"("xab12")"}},
      {R"({"type": "string", "pattern": "b|^x$"})", {R"("abc")", R"("x")"}, {R"("ax")", R"("")"}},
      {R"({"type": "string", "pattern": "^(?:\\\\|\"|[^\\w\\s])$"})",
       {R"("\\")", R"("\"")", R"("!")"},
       {R"("a")", R"(" ")"}},
      {R"({"type": "string", "format": "date-time"})",
       {R"("2024-02-28T23:59:00Z")"},
       {R"("2024-02-30T23:59:00Z")", R"("2024-02-28")"}},
      {R"({"type": "string", "format": "ipv4"})", {R"("255.0.10.1")"}, {R"("256.0.0.1")", R"("1.2.3")"}},
      {R"({"type": "string", "format": "something"})", {R"("any")"}, {}},
      {R"({"type": "number"})", {"0", "-0.5", "1e5", "12E-3"}, {"01", "1.", ".5", "1e", "+1", "NaN"}},
      {R"({"type": "integer"})", {"0", "-12", "999999999999999"}, {"1.0", "01", "-", "1e3"}},
      {R"({"type": "integer", "minimum": -17, "maximum": 305})",
       {"-17", "-1", "0", "99", "100", "305"},
       {"-18", "306", "-100", "-0", "1000"}},
      {R"({"type": "integer", "minimum": 95, "maximum": 1203})",
       {"95", "100", "999", "1000", "1203"},
       {"94", "9", "1204", "2000"}},
      {R"({"type": "number", "minimum": 0.5, "maximum": 1})", {"0.50", "0.99", "1", "1.00"}, {"0.49", "1.01", "0"}},
      {R"({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}})",
       {"{}", R"({"a": null})", R"({"b":null})", R"({"a": null, "b": null})", "{\n  \"a\": null\n}"},
       {R"({"b": null, "a": null})", R"({"a": null,})", R"({"c": null})", R"({"a": null "b": null})"}},
      {R"({"type": "object", "properties": {"ab": {"type": "null"}}, "additionalProperties": {"type": "boolean"}})",
       {R"({"a": true, "abc": false})", R"({"ab": null, "é": true})", "{}"},
       {R"({"ab": true})", R"({"a": null})", R"({"\u0061b": true})"}},
      {R"({"const": {"a": [1, "x"]}})", {R"({"a":[1,"x"]})"}, {R"({"a":[1]})"}},
      {R"({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3})",
       {"[1,2]", "[1, 2, 3]"},
       {"[1]", "[1,2,3,4]", "[]", "[1,]"}},
      {R"({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "null"}})",
       {"[]", "[1]", "[1,null,null]"},
       {"[null]", "[1,2]"}},
      {R"({"type": "string", "nullable": true})", {"null", R"("x")"}, {"1"}},
      {R"({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 4}]})", {"3", "4"}, {"2", "5"}}};
  for (const TextsOfASchema& one : all) {
    for (const std::string& text : one.accepted)
      EXPECT_TRUE(accepts(grammar_of(one.schema), text)) << one.schema << " " << text;
    for (const std::string& text : one.refused)
      EXPECT_FALSE(accepts(grammar_of(one.schema), text)) << one.schema << " " << text;
  }
  EXPECT_FALSE(accepts(grammar_of(R"({"type": "array"})", {.compact = true}), "[1, 2]"));
  EXPECT_TRUE(accepts(grammar_of(R"({"type": "array"})", {.compact = true}), "[1,2]"));
  EXPECT_TRUE(accepts(grammar_of(R"({"type": "array"})", {.space = 2}), "[1,  2]"));
  EXPECT_FALSE(accepts(grammar_of(R"({"type": "array"})", {.space = 2}), "[1,   2]"));
  EXPECT_TRUE(accepts(json_grammar(true), R"({"a": [1, {"b": null}]})"));
  EXPECT_FALSE(accepts(json_grammar(true), "[1]"));
  EXPECT_TRUE(accepts(json_grammar(false), "[1]"));
}

TEST(JsonSchema, WhatCannotBeFollowedIsAnErrorThatNamesThePlace) {
  const std::vector<std::pair<const char*, const char*>> all = {
      {R"({"not": {"type": "null"}})", "at the root: the keyword 'not' is not supported"},
      {R"({"type": "object", "properties": {"a/b": {"if": true}}})",
       "at /properties/a~1b: the keyword 'if' is not supported"},
      {R"({"type": "array", "uniqueItems": true})", "uniqueItems: not supported"},
      {R"({"type": "object", "patternProperties": {}})", "'patternProperties' is not supported"},
      {R"({"type": "number", "multipleOf": 0.5})", "multipleOf: only 1 is supported"},
      {R"({"type": "strin"})", "found 'strin'"},
      {R"({"type": 3})", "type: expected the name of a type"},
      {R"({"$ref": "#/nothing"})", "names no part of the schema"},
      {R"({"$ref": "http://example.org/x"})", "expected a reference inside of the schema"},
      {R"({"$ref": "#"})", "calls itself"},
      {R"({"$ref": "#", "type": "object"})", "references that refer to one another"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "might have both alternatives 0 and 1"},
      {R"({"type": "string", "pattern": "(?=a)b"})", "look-around"},
      {R"({"type": "string", "pattern": "(a)\\1"})", "\\1 is not supported"},
      {R"({"type": "string", "pattern": "a\\b"})", "\\b is not supported"},
      {R"({"type": "string", "pattern": "a", "minLength": 3})", "cannot be combined"},
      {R"({"type": "string", "minLength": -1})", "minLength: expected a number of 0 or more"},
      {R"({"type": "integer", "minimum": 5, "maximum": 4})", "no text is complete"},
      {R"({"type": "object", "properties": {"a": false}, "required": ["a"]})", "no text is complete"},
      {R"({"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["x"]})", "no text is complete"},
      {R"({"enum": []})", "enum: expected a list of values"},
      {R"("text")", "expected a schema"},
      {R"({"anyOf": 5})", "anyOf: expected a list"},
      {R"({"properties": []})", "properties: expected an object"},
      {R"({"required": [1], "type": "object"})", "required: expected a list of names"}};
  for (const auto& [schema, expected] : all) {
    try {
      grammar_of(schema);
      ADD_FAILURE() << "no error: " << schema;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(expected), std::string::npos) << schema << ": " << error.what();
    }
  }
}

TEST(JsonSchema, HostileSchemasAreBounded) {
  const auto nested = [](const std::string& open, const std::string& inside, const std::string& close, int n) {
    std::string text;
    for (int i = 0; i < n; ++i) text += open;
    text += inside;
    for (int i = 0; i < n; ++i) text += close;
    return text;
  };
  EXPECT_NO_THROW(grammar_of(nested(R"({"type": "array", "items": )", "true", "}", 200)));
  EXPECT_NO_THROW(grammar_of(nested(R"({"anyOf": [)", "true", "]}", 200)));
  EXPECT_NO_THROW(grammar_of(nested(R"({"allOf": [)", "{\"type\": \"null\"}", "]}", 200)));
  std::string chain = R"({"$ref": "#/$defs/d0", "$defs": {)";
  for (int i = 0; i < 20'000; ++i)
    chain += "\"d" + std::to_string(i) + "\": {\"$ref\": \"#/$defs/d" + std::to_string(i + 1) + "\"}, ";
  EXPECT_NO_THROW(grammar_of(chain + "\"d20000\": true}}"));
  EXPECT_THROW(grammar_of(R"({"type": "string", "minLength": 1e9})"), Error);
  EXPECT_NO_THROW(grammar_of(R"({"type": "string", "maxLength": 1e9})"));
  const char* large =
      R"({"type": "array", "minItems": 100000, "items": {"type": "array", "minItems": 100000, "items": {"type": "string", "minLength": 100000}}})";
  EXPECT_LT(grammar_of(large).states(), 1'000'000) << "items are read by rules, not by copies";
}

}  // namespace
}  // namespace fathom
