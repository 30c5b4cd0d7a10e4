#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "eval/sets/python_literal.h"
#include "eval/sets/records.h"
#include "set_folder.h"

namespace fathom::eval {
namespace {

/// Returns the text of the Error that `act` throws, or an empty text.
template <class Act>
std::string error_of(Act act) {
  try {
    act();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

void expect_parts(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
}

std::string sample_error(const std::string& spec) {
  return error_of([&] { task_methods().make(spec); });
}

const char* kHotpot =
    R"({"input": "Who?", "context": "Ann did.", "answers": ["Ann"], "length": 4, "all_classes": null})";

TEST(Records, AreReadFromLinesAndFromArrays) {
  const SetFolder folder;
  const std::string lines = folder.write("a.jsonl", "{\"x\": \"1\"}\n\n{\"x\": \"2\"}\n");
  const std::string array = folder.write("a.json", " [{\"x\": \"1\"},\n {\"x\": \"2\"}]");
  for (const std::string& path : {lines, array}) {
    std::string texts;
    read_records(path, [&](const SetRecord& record) { texts += record.text("x"); });
    EXPECT_EQ(texts, "12");
  }
}

TEST(Records, ErrorsNameFileLineAndField) {
  const SetFolder folder;
  const auto read = [&](const std::string& path, const char* field) {
    return error_of([&] { read_records(path, [&](const SetRecord& record) { record.text(field); }); });
  };
  const std::string lines = folder.write("a.jsonl", "{\"x\": \"1\"}\n{\"x\": 2}\n");
  expect_parts(read(lines, "x"), {"a.jsonl: line 2", "\"x\"", "expected a string, found a number"});
  expect_parts(read(lines, "y"), {"line 1", "\"y\"", "missing"});
  const std::string array = folder.write("a.json", "[{\"x\": \"1\"}, {\"x\": null}]");
  expect_parts(read(array, "x"), {"a.json: record 2", "\"x\"", "missing"});
  expect_parts(read(folder.write("b.json", "[{\"x\": \"1\"}, 7]"), "x"), {"record 2", "expected an object"});
  expect_parts(read(folder.write("c.json", "[{\"x\": \"1\"}, {\"x\""), "x"), {"record 2", "invalid JSON"});
  expect_parts(read(folder.write("d.jsonl", "{\"x\": \"1\"}\n{\"x\": \"2\"\n"), "x"), {"line 2", "invalid JSON"});
  expect_parts(read(folder.write("e.jsonl", ""), "x"), {"empty"});
  expect_parts(read(folder.write("f.jsonl", std::string("\x7f"
                                                        "ELF\0\1\2",
                                                        7)),
                    "x"),
               {"line 1", "invalid JSON"});
  expect_parts(read(folder.path() + "/none.jsonl", "x"), {"none.jsonl"});
}

TEST(Records, HostileNestingAndNumbersAreErrors) {
  const SetFolder folder;
  const std::string deep = "{\"x\": " + std::string(200000, '[') + std::string(200000, ']') + "}";
  const std::string path = folder.write("a.jsonl", deep + "\n");
  const auto text = error_of([&] { read_records(path, [](const SetRecord& record) { record.text("x"); }); });
  expect_parts(text, {"line 1", "nested deeper than 500 levels"});
  const std::string huge = folder.write("b.jsonl", "{\"x\": 18446744073709551615}\n");
  EXPECT_NE(error_of([&] { read_records(huge, [](const SetRecord& record) { record.integer("x"); }); }), "");
  const std::string list = folder.write("c.jsonl", "{\"x\": [], \"y\": [{}], \"z\": [\"a\", 3]}\n");
  read_records(list, [](const SetRecord& record) {
    EXPECT_NE(error_of([&] { record.texts("x"); }), "");
    EXPECT_NE(error_of([&] { record.texts("y"); }), "");
    EXPECT_EQ(record.texts("z"), (std::vector<std::string>{"a", "3"}));
  });
}

TEST(PromptForm, SplitsAfterTheDocumentAndUnescapesBraces) {
  const PromptForm form("Read {{this}}: {doc}\nQ: {q}", "here", {"doc", "q"}, "doc");
  Sample sample;
  form.fill({{"doc", "a {q} b"}, {"q", "why?"}}, sample);
  EXPECT_EQ(sample.context, "Read {this}: a {q} b");
  EXPECT_EQ(sample.question, "\nQ: why?");
  expect_parts(error_of([] { PromptForm("{doc} {other}", "here", {"doc"}, "doc"); }), {"here", "other"});
  expect_parts(error_of([] { PromptForm("{doc", "here", {"doc"}, "doc"); }), {"unclosed brace"});
  expect_parts(error_of([] { PromptForm("text", "here", {"doc"}, "doc"); }), {"no placeholder {doc}"});
}

TEST(PythonLiteral, ReadsWhatPythonWrites) {
  const auto dumped = [](std::string_view text) { return parse_python_literal(text, "here").dump(); };
  EXPECT_EQ(dumped(R"([{'Q': "it's", 'A': 'a\n"b"', 'S': ['\u4e2d\x41\101', ()]}, None, True, -1, 2.5e1,])"),
            R"([{"Q":"it's","A":"a\n\"b\"","S":["中AA",[]]},null,true,-1,25.0])");
  EXPECT_EQ(dumped("'one' \"two\"\n"), "\"onetwo\"");
  EXPECT_EQ(dumped(R"({"a": [1, null, false], 3: '\d\
'})"),
            R"({"a":[1,null,false],"3":"\\d"})");
}

TEST(PythonLiteral, ErrorsNameTheByte) {
  const auto error = [](const std::string& text) { return error_of([&] { parse_python_literal(text, "here"); }); };
  expect_parts(error("[1, 2"), {"here", "byte 5", "',' or ']'", "the end"});
  expect_parts(error("{'a' 1}"), {"byte 5", "':'"});
  expect_parts(error("'open"), {"closing '"});
  expect_parts(error("[import]"), {"byte 1", "import"});
  expect_parts(error("1 2"), {"byte 2", "the end"});
  expect_parts(error("'\\ud800'"), {"code of a character"});
  expect_parts(error("'\\x4"), {"code of a character"});
  expect_parts(error(""), {"byte 0"});
  expect_parts(error(std::string(100000, '[')), {"levels"});
  expect_parts(error("{[1]: 2}"), {"a key that is not a list or dict"});
}

TEST(SetFiles, AMissingPathNamesTheExpectedFileAndItsSource) {
  for (const auto& entry : task_methods().entries()) {
    if (entry.info.needs != "files of the set") continue;
    const std::string missing = sample_error(entry.info.name);
    expect_parts(missing, {entry.info.name, "path is missing", "expected ", "json", " of "});
    const std::string wrong = sample_error(entry.info.name + ":path=/nowhere/at/all");
    expect_parts(wrong, {entry.info.name, "/nowhere/at/all", "expected "});
    EXPECT_TRUE(wrong.find("Hugging Face: ") != std::string::npos || wrong.find("github.com/") != std::string::npos)
        << wrong;
    const SetFolder empty;
    expect_parts(sample_error(entry.info.name + ":path=" + empty.path()), {empty.path(), "expected "});
  }
}

TEST(SetFiles, SetsAreSelectedByNameAndFilesByTheirOwn) {
  const SetFolder folder;
  const std::string file = folder.write("hotpotqa.jsonl", std::string(kHotpot) + "\n");
  folder.write("2wikimqa.jsonl", std::string(kHotpot) + "\n");
  folder.write("data/musique_e.jsonl", std::string(kHotpot) + "\n");
  folder.write("README.md", "not a set");
  EXPECT_EQ(task_methods().make("longbench:path=" + folder.path()).size(), 3u);
  const TaskList two = task_methods().make("longbench:set=musique_e+hotpotqa,path=" + folder.path());
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[0]->name(), "longbench/musique_e");
  EXPECT_EQ(task_methods().make("longbench:path=" + file).front()->name(), "longbench/hotpotqa");
  expect_parts(sample_error("longbench:set=hotpot,path=" + folder.path()), {"unknown set", "hotpot", "hotpotqa"});
  expect_parts(sample_error("longbench:set=trec,path=" + folder.path()), {"contains no trec.jsonl"});
  expect_parts(sample_error("longbench:set=trec,path=" + file), {"set=trec", "hotpotqa"});
  expect_parts(sample_error("longbench:path=" + folder.path() + "/README.md"), {"unknown set", "README"});
}

TEST(SetTask, SamplesOfOneDocumentAreConsecutiveAndGrouped) {
  SetTask task("set", score_by("qa_f1"));
  const auto add = [&](const char* context, const char* question) {
    Sample sample = published_sample(10, {"x"}, 1);
    sample.context = context;
    sample.question = question;
    task.add(std::move(sample));
  };
  add("one", "1");
  add("two", "2");
  add("one", "3");
  task.finish("file");
  std::string order;
  for (int i = 0; i < 3; ++i) order += task.make({}, 100, i).question;
  EXPECT_EQ(order, "132");
  EXPECT_EQ(task.make({}, 100, 0).group, task.make({}, 100, 1).group);
  EXPECT_NE(task.make({}, 100, 0).group, "");
  EXPECT_EQ(task.make({}, 100, 2).group, "");
  EXPECT_EQ(task.make({}, 100, 1).context, "one");
  EXPECT_THROW(task.make({}, 10, 0), Error);  // no token remains for the prompt
  EXPECT_THROW(task.make({}, 100, 3), Error);
}

}  // namespace
}  // namespace fathom::eval
