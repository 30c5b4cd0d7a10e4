#include "tokens/chat_template.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace fathom {
namespace {

const std::vector<ChatMessage> kChat{
    {"system", "Be brief."}, {"user", "Hi "}, {"assistant", "Hello."}, {"user", "Bye"}};

std::string render(const std::string& source, const std::vector<ChatMessage>& messages = kChat,
                   bool prompt = true) {
  return ChatTemplate(source, "<s>", "</s>").render(messages, prompt);
}

/// Returns the message of the error that rendering throws; empty if it throws none.
std::string error_of(const std::string& source) {
  try {
    render(source);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(ChatTemplate, ChatMlStyle) {
  const std::string source =
      "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% "
      "endfor %}\n"
      "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
  const std::string chat =
      "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi "
      "<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
      "<|im_start|>user\nBye<|im_end|>\n";
  EXPECT_EQ(render(source), chat + "<|im_start|>assistant\n");
  EXPECT_EQ(render(source, kChat, false), chat);
}

TEST(ChatTemplate, Llama3Style) {
  const std::string source = R"({{- bos_token }}
{%- set head = '<|start_header_id|>' %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{{- head ~ "system<|end_header_id|>\n\n" ~ system ~ '<|eot_id|>' }}
{%- for message in messages %}
    {{- head + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- head ~ 'assistant<|end_header_id|>\n\n' }}
{%- endif %}
)";
  EXPECT_EQ(
      render(source, {{"system", " S "}, {"user", " u\n"}}),
      "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
      "u<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST(ChatTemplate, MistralStyleRejectsRolesOutOfOrder) {
  const std::string source =
      "{{ bos_token }}{% for m in messages %}"
      "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% "
      "endif %}"
      "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
      "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}";
  EXPECT_EQ(render(source, {{"user", "a"}, {"assistant", "b"}, {"user", "c"}}),
            "<s>[INST] a [/INST] b</s>[INST] c [/INST]");
  EXPECT_NE(error_of(source).find("roles must alternate"), std::string::npos);
}

TEST(ChatTemplate, GemmaStyleRenamesTheAssistant) {
  const std::string source = R"({{ bos_token }}{% for message in messages %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}
{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %})";
  EXPECT_EQ(render(source, {{"user", "a "}, {"assistant", "b"}}),
            "<s><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n<start_of_turn>model\n");
}

TEST(ChatTemplate, ZephyrStyle) {
  const std::string source = R"({% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
' + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %})";
  EXPECT_EQ(render(source, {{"user", "a"}, {"assistant", "b"}, {"user", "c"}}),
            "<|user|>\na</s>\n<|assistant|>\nb</s>\n<|user|>\nc</s>\n<|assistant|>\n");
}

TEST(ChatTemplate, ThinkingStyleRemovesOldThoughtsAndHasASwitch) {
  const std::string source = R"({%- set ns = namespace(last=-1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if ns.last < 0 and message.role == "user" %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '</think>' in content and loop.index0 < ns.last %}
        {%- set content = content.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {{- '[' + message.role + ']' + content }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '[assistant]' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %})";
  const std::vector<ChatMessage> chat{{"user", "a"}, {"assistant", "<think>\nhm\n</think>\n\nb"}, {"user", "c"}};
  const ChatTemplate parsed(source, "", "");
  EXPECT_EQ(parsed.render(chat, true), "[user]a[assistant]b[user]c[assistant]");
  EXPECT_EQ(parsed.render(chat, true, {.switches = {{"enable_thinking", false}}}),
            "[user]a[assistant]b[user]c[assistant]<think>\n\n</think>\n\n");
}

TEST(ChatTemplate, WhiteSpaceAroundBlocksIsTrimmedAsMarked) {
  EXPECT_EQ(render("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(render("a {%- if true -%} b {%- endif %}"), "ab");
  EXPECT_EQ(render("a\n  {%+ if true +%}\nb{% endif %}"), "a\n  \nb");
  EXPECT_EQ(render("a\n  {{ 1 }}\n  b"), "a\n  1\n  b");
  EXPECT_EQ(render("a\n {# note #}\nb"), "a\nb");
  EXPECT_EQ(render("{% raw %}{{ x }}{% endraw %}"), "{{ x }}");
}

TEST(ChatTemplate, ArithmeticFollowsPython) {
  EXPECT_EQ(render("{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 4 / 2 }} {{ 2 ** 10 }} {{ 1 + 2 * 3 }} {{ 1e20 }}"),
            "-4 2 3.5 2.0 1024 7 1e+20");
  EXPECT_EQ(render("{{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ 'b' > 'a' }} {{ not 1 in [1] }}"), "True True True False");
}

TEST(ChatTemplate, ValuesPrintAsInPython) {
  EXPECT_EQ(render(R"({{ [1, 'a', none, true, 1.0, "it's"] }} {{ {'k': (1,)} }} {{ missing }})"),
            R"([1, 'a', None, True, 1.0, "it's"] {'k': (1,)} )");
  EXPECT_EQ(render(R"({{ {'a': [1, "é\n"], 'b': {}} | tojson }})"), R"({"a": [1, "é\n"], "b": {}})");
  EXPECT_EQ(render("{{ {'a': [1]} | tojson(indent=1) }}"), "{\n \"a\": [\n  1\n ]\n}");
}

TEST(ChatTemplate, LoopsScopesAndMacros) {
  EXPECT_EQ(render("{% set x = 1 %}{% for i in [1, 2] %}{% set x = 9 %}{% endfor %}{{ x }}"), "1");
  EXPECT_EQ(render("{% for i in range(9) if i % 2 %}{% if i == 5 %}{% break %}{% endif %}{{ loop.index }}{{ i "
                   "}},{% endfor %}"),
            "11,23,");
  EXPECT_EQ(render("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% else %}none{% endfor %}"), "a1");
  EXPECT_EQ(render("{% macro f(a, b='B') %}<{{ a }}{{ b }}>{% endmacro %}{{ f(1) }}{{ f(b=2, a=3) }}"), "<1B><32>");
  EXPECT_EQ(render("{% set x | upper %}a{{ 1 }}b{% endset %}{{ x }}"), "A1B");
}

TEST(ChatTemplate, FiltersAndMethods) {
  EXPECT_EQ(render("{{ messages | map(attribute='role') | join(',') }}"), "system,user,assistant,user");
  EXPECT_EQ(render("{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}"),
            "['Hi ', 'Bye']");
  EXPECT_EQ(render("{{ 'a-b-c'.split('-', 1) }} {{ ' x '.strip() }} {{ 'ÀB' | lower }} {{ 'é' | length }}"),
            "['a', 'b-c'] x àb 1");
  EXPECT_EQ(render("{{ {'b': 1, 'a': 2} | dictsort }} {{ 'a\nb' | indent(2) }}"), "[('a', 2), ('b', 1)] a\n  b");
  EXPECT_EQ(render("{{ 'hello'[1:3] }} {{ [1, 2, 3][::-1] }} {{ [1][5] is defined }}"), "el [3, 2, 1] False");
}

TEST(ChatTemplate, ContentOfAnyBytesPassesUnchanged) {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  EXPECT_EQ(render("{{ messages[0].content }}", {{"user", bytes}}), bytes);
  EXPECT_NO_THROW(render("{{ messages[0].content | upper | trim | title | length }}", {{"user", bytes}}));
}

TEST(ChatTemplate, InvalidTemplatesAreErrorsThatNameTheLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\n{% nosuch %}", "line 2: expected if, for"},
      {"{{ 1 | nosuch }}", "unknown filter 'nosuch'"},
      {"\n\n{{ 1 is nosuch }}", "line 3: unknown test 'nosuch'"},
      {"{{ 'a'.nosuch() }}", "no method 'nosuch'"},
      {"{% if true %}", "'{% endif %}'"},
      {"{% if true %}{% endfor %}", "found 'endfor'"},
      {"{{ 1", "'{{' has no '}}'"},
      {"{# x", "'{#' has no end"},
      {"{{ 'a }}", "no closing '"},
      {"{{ 1 ? 2 }}", "unexpected character '?'"},
      {"{{ (1 }}", "expected ')'"},
      {"{% break %}", "loop"},
      {"{{ missing.x }}", "'missing' is undefined"},
      {"{{ missing() }}", "cannot be called"},
      {"{{ 'a' + 1 }}", "'+' is not supported for a string and an integer"},
      {"{{ 1 / 0 }}", "division by zero"},
      {"{{ 9223372036854775807 + 1 }}", "exceeds 64 bits"},
      {"{{ (-9223372036854775807 - 1) // -1 }}", "exceeds 64 bits"},
      {"{{ 99999999999999999999 }}", "too large"},
      {"{% for x in 5 %}{% endfor %}", "an integer"},
      {"{% set a, b = [1] %}", "expected 2 values"},
      {"{% set messages.x = 1 %}", "not a namespace"},
      {"{{ f(*messages) }}", "unpacked"},
      {"{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "at most 1"},
      {"{{ [1, 'a'] | sort }}", "cannot be ordered"},
      {"{{ range(1, 2, 0) }}", "step"},
      {"{% raw %}", "endraw"},
      {"{% include 'x' %}", "found 'include'"},
  };
  for (const auto& [source, expected] : cases) {
    EXPECT_NE(error_of(source).find(expected), std::string::npos) << source << " gave: " << error_of(source);
    EXPECT_NE(error_of(source).find("chat template, line "), std::string::npos) << source;
  }
}

TEST(ChatTemplate, EndlessOrHugeTemplatesAreErrors) {
  const auto repeated = [](const std::string& text, int count) {
    std::string all;
    for (; count > 0; --count) all += text;
    return all;
  };
  const std::string cases[] = {
      "{{ range(10 ** 18) }}",
      "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor "
      "%}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
      "{{ 'x' * 10 ** 15 }}",
      "{{ [1] * 10 ** 15 }}",
      "{{ 'a' | indent(10 ** 9) }}",
      "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s.replace('', ns.s) %}{% endfor %}",
      "{{ " + repeated("(", 100000) + "1" + repeated(")", 100000) + " }}",
      "{{ " + repeated("[", 100000),
      "{{ " + repeated("not ", 100000) + "1 }}",
      "{{ " + repeated("-", 100000) + "1 }}",
      "{{ 1" + repeated(" + 1", 100000) + " }}",
      "{{ 1" + repeated("|abs", 100000) + " }}",
      "{{ a" + repeated(".b", 100000) + " }}",
      "{{ 1" + repeated(" if 1", 100000) + " }}",
      repeated("{% if true %}", 100000),
      repeated("{% for x in [1] %}", 200) + repeated("{% endfor %}", 200) + repeated("{% macro f() %}", 1000),
  };
  for (const std::string& source : cases) EXPECT_NE(error_of(source), "") << source.substr(0, 80);
}

TEST(ChatTemplate, ANamespaceCannotContainItself) {
  EXPECT_EQ(render("{% set ns = namespace(a=1) %}{% set ns.b = ns %}{% set ns.c = [ns] %}{{ ns.b }}{{ ns.c }}"),
            "{'a': 1}[{'a': 1, 'b': {'a': 1}}]");
}

TEST(ChatTemplate, LongMessagesRender) {
  const std::string book(3'000'000, 'x');
  const std::string source =
      "{% for m in messages %}{% set c = m.content | trim %}{{ '<' + m.role + '>' + c.strip() + eos_token }}{% "
      "endfor %}";
  EXPECT_EQ(render(source, {{"user", book}, {"user", book}}).size(), 2 * (book.size() + 10));
}

TEST(ChatTemplate, CorruptedTemplatesNeverCrash) {
  const std::string source =
      "{%- macro f(a, b=[1, {'k': 2}]) -%}{{ a | map('upper') | join(b[0] ~ '') }}{%- endmacro %}\n"
      "{% for m in messages if m.role != 'x' %}{% set ns = namespace(q=m.content[1:-1]) %}{% set ns.q = -1 if m "
      "else f(m) "
      "%}{{ loop.index is odd and not (m.role in ['user', \"a\\n\"]) }}{# c #}{% else %}{% raw %}x{% endraw %}{% "
      "endfor %}";
  for (size_t from = 0; from < source.size(); ++from) {
    for (const size_t bytes : {1, 2, 5, 1000}) {
      std::string cut = source;
      cut.erase(from, bytes);
      error_of(cut);
      std::string changed = source;
      changed[from] = "{}%'\"()[]|.,~-"[(from + bytes) % 14];
      error_of(changed);
    }
  }
  EXPECT_EQ(error_of(source), "");
}

}  // namespace
}  // namespace fathom
