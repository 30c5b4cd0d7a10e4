// How models write calls of tools and reasoning: learnt from templates of several kinds, written, and parsed in
// pieces.
#include <gtest/gtest.h>

#include <random>

#include "base/format.h"
#include "seed.h"
#include "tokens/answer_format.h"
#include "tokens/answer_parser.h"

namespace fathom {
namespace {

/// A template with tools. calls: the loop body that prints a call; results and texts are the same in all.
std::string template_with(const std::string& calls, const std::string& before_answer = "") {
  return "{% if tools %}<sys>{{ tools | tojson }}</sys>{% endif %}"
         "{% for m in messages %}<{{ m.role }}>\n" +
         ("{% if m.role == 'assistant' %}" + before_answer + "{% endif %}") +
         "{{ m.content }}{% if m.tool_calls %}" + calls +
         "{% endif %}<end>\n{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}";
}

const std::string kHermes = template_with(
    "{% for c in m.tool_calls %}<tool_call>\n{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ "
    "c.function.arguments | tojson }}}\n</tool_call>{% endfor %}",
    "<think>\n\n</think>\n\n");
const std::string kBare = template_with(
    "{{ '{\"name\": \"' + m.tool_calls[0].function.name + '\", \"parameters\": ' }}{{ "
    "m.tool_calls[0].function.arguments | tojson }}}");
const std::string kList = template_with(
    "[TOOL_CALLS][{% for c in m.tool_calls %}{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ "
    "c.function.arguments | tojson }}, \"id\": \"{{ c.id }}\"}{% endfor %}]");
const std::string kNamed = template_with(
    "{% for c in m.tool_calls %}<｜call▁begin｜>function<｜sep｜>{{ c.function.name + '\n```json\n' + "
    "c.function.arguments + '\n```<｜call▁end｜>' }}{% endfor %}");
const std::string kTagged = template_with(
    "{% for c in m.tool_calls %}<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in "
    "c.function.arguments.items() %}<parameter={{ k }}>\n{{ v if v is string else v | tojson }}\n</parameter>\n{% "
    "endfor %}</function>\n</tool_call>{% endfor %}");
const std::string kIdentified = template_with(
    "{% for c in m.tool_calls %}[TOOL_CALLS]{{ c.function.name }}[CALL_ID]{{ c.id }}[ARGS]{{ c.function.arguments "
    "| tojson "
    "}}{% endfor %}");
const std::string kKeyed = template_with(
    "<|tools|>[{% for c in m.tool_calls %}{\"{{ c.function.name }}\": {{ c.function.arguments | tojson }}}{% "
    "endfor %}]<|/tools|>");
const std::string kOtherKeys = template_with(
    "{% for c in m.tool_calls %}<|ACTION|>[\n {\"tool_call_id\": \"0\", \"tool_name\": \"{{ c.function.name }}\", "
    "\"input\": {{ "
    "c.function.arguments | tojson }}}\n]<|END_ACTION|>{% endfor %}");
/// The prompt ends with a tag that shares its first letters with that of calls.
const std::string kOpensReasoning =
    template_with(
        "{% for c in m.tool_calls %}<tool_call>\n{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ "
        "c.function.arguments | tojson }}}\n</tool_call>{% endfor %}") +
    "{% if add_generation_prompt %}<think>\n{% endif %}{# </think> #}";
const std::string kUnaware =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if "
    "add_generation_prompt %}<assistant>{% endif %}";
const std::string kHarmony =
    "{% for m in messages %}<|start|>{{ m.role }}<|channel|>final<|message|>{{ m.content "
    "}}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}";

AnswerFormat format_of(const std::string& source) { return learn_answer_format(ChatTemplate(source, "", "")); }

Json tools() {
  const Json weather = {{"type", "object"},
                        {"properties", {{"city", {{"type", "string"}}}, {"days", {{"type", "integer"}}}}}};
  return Json::array({{{"type", "function"}, {"function", {{"name", "weather"}, {"parameters", weather}}}},
                      {{"type", "function"}, {"function", {{"name", "stop"}}}}});
}

struct Parsed {
  std::string reasoning, text;
  std::vector<std::pair<std::string, std::string>> calls;
  bool operator==(const Parsed&) const = default;
};

/// Parses an answer that arrives in pieces of 1 to `most` characters.
Parsed parse(const AnswerFormat& format, const std::string& answer, const Json& known = tools(), size_t most = 0,
             uint64_t seed = 0, const std::string& forced = "") {
  Parsed found;
  std::mt19937 random(static_cast<unsigned>(seed));
  AnswerParser parser(
      format, known,
      {[&](std::string_view text) { found.reasoning += text; }, [&](std::string_view text) { found.text += text; },
       [&](std::string_view name) { found.calls.emplace_back(name, ""); },
       [&](std::string_view json) { found.calls.back().second += json; }},
      forced);
  for (size_t at = 0; at < answer.size();) {
    size_t n = most == 0 ? answer.size() : 1 + random() % most;
    n = std::min(n, answer.size() - at);
    while (at + n < answer.size() && (static_cast<unsigned char>(answer[at + n]) & 0xc0) == 0x80) ++n;
    parser.add(answer.substr(at, n));
    at += n;
  }
  parser.finish();
  return found;
}

TEST(AnswerFormat, IsLearntFromTemplates) {
  const AnswerFormat hermes = format_of(kHermes);
  EXPECT_TRUE(hermes.knows_tools);
  EXPECT_EQ(hermes.think_end, "</think>");
  EXPECT_EQ(hermes.call_begin, "<tool_call>\n{\"name\": \"");
  EXPECT_EQ(hermes.call_middle, "\", \"arguments\": ");
  EXPECT_EQ(hermes.call_end, "}\n</tool_call>");
  const AnswerFormat bare = format_of(kBare);
  EXPECT_EQ(bare.call_begin, "{\"name\": \"");
  EXPECT_EQ(bare.call_middle, "\", \"parameters\": ");
  EXPECT_EQ(bare.call_end, "}");
  EXPECT_EQ(format_of(kList).call_begin, "[TOOL_CALLS][{\"name\": \"");
  const AnswerFormat named = format_of(kNamed);
  EXPECT_TRUE(named.text_arguments);
  EXPECT_EQ(named.call_middle, "\n```json\n");
  EXPECT_EQ(named.call_end, "\n```<｜call▁end｜>");
  const AnswerFormat tagged = format_of(kTagged);
  EXPECT_EQ(tagged.style, AnswerFormat::Style::kParameters);
  EXPECT_EQ(tagged.call_begin, "<tool_call>\n<function=");
  EXPECT_EQ(tagged.call_middle, ">\n");
  EXPECT_EQ(tagged.value_begin, "<parameter=");
  EXPECT_EQ(tagged.value_middle, ">\n");
  EXPECT_EQ(tagged.value_end, "\n</parameter>\n");
  EXPECT_EQ(tagged.call_end, "</function>\n</tool_call>");
  EXPECT_TRUE(format_of(kOpensReasoning).begins_reasoning);
  EXPECT_FALSE(format_of(kOpensReasoning).has_switch);
  EXPECT_FALSE(hermes.begins_reasoning);
  EXPECT_FALSE(format_of(kUnaware).knows_tools);
  EXPECT_EQ(format_of(kHarmony).style, AnswerFormat::Style::kHarmony);
}

TEST(AnswerFormat, CallsAreParsedInAnyPieces) {
  const std::vector<std::pair<const char*, const std::string*>> all = {
      {"hermes", &kHermes},  {"bare", &kBare},       {"list", &kList},
      {"named", &kNamed},    {"tagged", &kTagged},   {"identified", &kIdentified},
      {"keyed", &kKeyed},    {"other", &kOtherKeys}, {"opens", &kOpensReasoning},
      {"unaware", &kUnaware}};
  std::mt19937 random(static_cast<unsigned>(test::seed(7)));
  const std::vector<std::string> cities = {"Oslo", "a \"b\" \\", "}{][", "Zürich\n日本", ""};
  for (const auto& [name, source] : all) {
    SCOPED_TRACE(name);
    const AnswerFormat format = format_of(*source);
    for (int i = 0; i < 60; ++i) {
      const int calls = 1 + (name == std::string("bare") ? 0 : static_cast<int>(random() % 3));
      const bool lead = name != std::string("bare") && random() % 2 == 0;
      std::string answer = lead ? "I look < it [up].\n" : "";
      Parsed expected;
      if (lead) expected.text = "I look < it [up].";
      for (int call = 0; call < calls; ++call) {
        const Json arguments = {{"city", cities[random() % cities.size()]},
                                {"days", static_cast<int64_t>(random() % 9)}};
        answer += write_call(format, "weather", arguments) + "\n";
        expected.calls.emplace_back("weather", arguments.dump());
      }
      if (format.begins_reasoning || (!format.think_end.empty() && random() % 2 == 0)) {
        answer =
            (format.begins_reasoning ? "" : "<think>\n") + std::string("Hm <tool_call>?\n</think>\n\n") + answer;
        expected.reasoning = "Hm <tool_call>?";
      }
      const Parsed found = parse(format, answer, tools(), 1 + random() % 12, random());
      ASSERT_EQ(found.reasoning, expected.reasoning) << answer;
      ASSERT_EQ(found.text, expected.text) << answer;
      ASSERT_EQ(found.calls.size(), expected.calls.size()) << answer;
      for (size_t k = 0; k < found.calls.size(); ++k) {
        EXPECT_EQ(found.calls[k].first, "weather");
        EXPECT_EQ(Json::parse(found.calls[k].second), Json::parse(expected.calls[k].second)) << answer;
      }
    }
  }
}

TEST(AnswerFormat, HarmonyMessagesAreDivided) {
  const std::string answer =
      "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>commentary to=functions.weather "
      "<|constrain|>json<|message|>{\"city\": \"Oslo\"}<|call|>";
  for (size_t most = 1; most < 30; most += 4) {
    const Parsed found = parse(format_of(kHarmony), answer, tools(), most, most);
    EXPECT_EQ(found.reasoning, "Think.");
    EXPECT_EQ(found.text, "");
    ASSERT_EQ(found.calls.size(), 1);
    EXPECT_EQ(found.calls[0], std::pair(std::string("weather"), std::string("{\"city\": \"Oslo\"}")));
    EXPECT_EQ(parse(format_of(kHarmony), "<|channel|>final<|message|>a < b<|return|>", Json(), most, most).text,
              "a < b");
  }
}

TEST(AnswerFormat, WhatIsNoCallStaysText) {
  const AnswerFormat hermes = format_of(kHermes), bare = format_of(kBare), tagged = format_of(kTagged);
  for (const std::string text :
       {"<tool_call> is a tag", "<tool_call>\n{\"name\": \"unknown\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\n{\"name\": 5}", "a <tool_call>\n[1, 2]", "<tool_call", "{\"name\": \"weather\""}) {
    for (size_t most = 0; most < 5; ++most) {
      EXPECT_EQ(parse(hermes, text, tools(), most).text, text);
      EXPECT_EQ(parse(bare, text, tools(), most).text, text);
      EXPECT_EQ(parse(tagged, text, tools(), most).text, text);
      EXPECT_TRUE(parse(hermes, text, tools(), most).calls.empty());
    }
  }
  const std::string call = write_call(hermes, "weather", {{"city", "Oslo"}});
  EXPECT_EQ(parse(hermes, call, Json()).text, call) << "without tools";
  EXPECT_EQ(parse(hermes, " a \n").text, " a");
  EXPECT_EQ(parse(hermes, " a \n", Json()).text, " a \n");
}

TEST(AnswerFormat, CallsThatThePromptBeganAreParsed) {
  for (const std::string* source :
       {&kHermes, &kBare, &kList, &kNamed, &kTagged, &kIdentified, &kKeyed, &kOtherKeys, &kUnaware}) {
    const AnswerFormat format = format_of(*source);
    const std::string call = write_call(format, "weather", {{"city", "Oslo"}});
    const Parsed found = parse(format, call.substr(format.call_begin.size()), tools(), 3, 1, format.call_begin);
    ASSERT_EQ(found.calls.size(), 1) << *source;
    EXPECT_EQ(Json::parse(found.calls[0].second), Json({{"city", "Oslo"}}));
  }
}

TEST(AnswerFormat, AListOfCallsIsDivided) {
  const std::string answer =
      R"([TOOL_CALLS][{"name": "stop", "arguments": {}}, {"id": "x", "name": "weather", "arguments": {"city": "]"}}])";
  for (size_t most = 1; most < 9; ++most) {
    const Parsed found = parse(format_of(kList), answer, tools(), most, most);
    ASSERT_EQ(found.calls.size(), 2);
    EXPECT_EQ(found.calls[0], std::pair(std::string("stop"), std::string("{}")));
    EXPECT_EQ(found.calls[1], std::pair(std::string("weather"), std::string(R"({"city": "]"})")));
    EXPECT_EQ(found.text, "");
  }
}

TEST(AnswerFormat, TruncatedArgumentsAreKept) {
  const Parsed found =
      parse(format_of(kHermes), "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Os");
  ASSERT_EQ(found.calls.size(), 1);
  EXPECT_EQ(found.calls[0].second, "{\"city\": \"Os");
}

TEST(AnswerFormat, ToolsAreDescribedToModelsThatDoNotKnowThem) {
  ChatMessage call{
      "assistant",
      "",
      {{"tool_calls",
        Json::array({{{"id", "1"}, {"function", {{"name", "weather"}, {"arguments", {{"city", "Oslo"}}}}}}})}}};
  const std::vector<ChatMessage> chat = {{"user", "Weather?"}, call, {"tool", "Rain", {{"tool_call_id", "1"}}}};
  const std::vector<ChatMessage> plain = with_tools(format_of(kUnaware), chat, tools());
  ASSERT_EQ(plain.size(), 4);
  EXPECT_EQ(plain[0].role, "system");
  EXPECT_NE(plain[0].content.find("\"weather\""), std::string::npos);
  EXPECT_EQ(plain[2].content,
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\":\"Oslo\"}}\n</tool_call>");
  EXPECT_EQ(plain[3].role, "user");
  EXPECT_EQ(plain[3].content, "<tool_response>\nRain\n</tool_response>");
  const std::vector<ChatMessage> native = with_tools(format_of(kNamed), chat, tools());
  EXPECT_EQ(native.size(), 3);
  EXPECT_EQ(native[1].fields.at("tool_calls").at(0).at("function").at("arguments").text(), "{\"city\":\"Oslo\"}");
}

}  // namespace
}  // namespace fathom
