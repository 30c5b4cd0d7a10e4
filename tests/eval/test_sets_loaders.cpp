#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "eval/task.h"
#include "set_folder.h"

namespace fathom::eval {
namespace {

constexpr int64_t kLength = 100000;

std::string loading_error(const std::string& spec) {
  try {
    task_methods().make(spec);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

double score_of(const Task& task, const Sample& sample, const std::string& text) {
  return task.score(sample, Answer{text, {}}).value;
}

/// Sample `index` of the only task of `spec`. load() expects its reference to score 1 and an empty answer 0.
struct LoadedSample {
  std::shared_ptr<const Task> task;
  Sample sample;

  double score(const std::string& text) const { return score_of(*task, sample, text); }
  double detail(const std::string& text, const char* name) const {
    return task->score(sample, Answer{text, {}}).details.at(name).get<double>();
  }
};

LoadedSample load(const std::string& spec, int64_t index = 0) {
  const TaskList tasks = task_methods().make(spec);
  EXPECT_EQ(tasks.size(), 1u) << spec;
  LoadedSample loaded{tasks.front(), tasks.front()->make({}, kLength, index)};
  const Sample& sample = loaded.sample;
  EXPECT_TRUE(sample.cut_middle);
  EXPECT_TRUE(sample.mode == Sample::Mode::kGenerate);
  EXPECT_GT(sample.reserve, 0);
  if (!sample.references.empty()) {
    EXPECT_NEAR(loaded.score(sample.references.front()), 1, 1e-12) << sample.references.front();
  }
  EXPECT_EQ(loaded.score(""), 0) << spec;
  return loaded;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(LongBench, QuestionsUseFathomsWordingAndThePublishedLimit) {
  const SetFolder folder;
  folder.write("hotpotqa.jsonl",
               R"({"input": "Who came?", "context": "Ann Lee came.", "answers": ["Ann Lee", "Lee"], "length": 3})");
  const LoadedSample loaded = load("longbench:path=" + folder.path());
  EXPECT_EQ(loaded.task->name(), "longbench/hotpotqa");
  EXPECT_EQ(loaded.task->available(), 1);
  EXPECT_EQ(loaded.sample.reserve, 32);
  EXPECT_TRUE(loaded.sample.context.ends_with("Ann Lee came."));
  EXPECT_TRUE(has(loaded.sample.question, "Who came?"));
  EXPECT_DOUBLE_EQ(loaded.score("Lee"), 1);
  EXPECT_TRUE(loaded.sample.chat);
}

TEST(LongBench, PublishedPromptsAndLimitsAreReadNextToTheData) {
  const SetFolder folder;
  folder.write("data/samsum.jsonl", R"({"input": "In", "context": "Con", "answers": ["a b c"], "length": 3})");
  folder.write("config/dataset2prompt.json", R"({"samsum": "{{A}} {context} B {input} C"})");
  folder.write("config/dataset2maxlen.json", R"({"samsum": 77})");
  const LoadedSample loaded = load("longbench:path=" + folder.path() + "/data");
  EXPECT_EQ(loaded.sample.prompt(), "{A} Con B In C");
  EXPECT_EQ(loaded.sample.context, "{A} Con");
  EXPECT_EQ(loaded.sample.reserve, 77);
  EXPECT_FALSE(loaded.sample.chat);
  EXPECT_EQ(loaded.sample.stop, std::vector<std::string>{"\n"});
  EXPECT_DOUBLE_EQ(loaded.score("\na b c\nx y z"), 1);  // only the first line is scored
  folder.write("config/dataset2maxlen.json", R"({"samsum": "many"})");
  EXPECT_TRUE(has(loading_error("longbench:path=" + folder.path() + "/data"), "samsum"));
  EXPECT_TRUE(
      has(loading_error("longbench:path=" + folder.path() + "/data,config=/nowhere"), "dataset2prompt.json"));
}

TEST(LongBench, EveryTaskScoresItsReferenceAsOne) {
  const SetFolder folder;
  for (const char* name : {"narrativeqa",
                           "qasper",
                           "multifieldqa_en",
                           "multifieldqa_zh",
                           "hotpotqa",
                           "2wikimqa",
                           "musique",
                           "dureader",
                           "gov_report",
                           "qmsum",
                           "multi_news",
                           "vcsum",
                           "trec",
                           "triviaqa",
                           "samsum",
                           "lsht",
                           "passage_count",
                           "passage_retrieval_en",
                           "passage_retrieval_zh",
                           "lcc",
                           "repobench-p"}) {
    folder.write(std::string(name) + "_e.jsonl",
                 R"({"input": "I", "context": "C", "answers": ["段落 12 ok"], "length": 4000,)"
                 R"( "all_classes": ["段落 12 ok", "other"]})");
    const LoadedSample loaded = load("longbench:set=" + std::string(name) + "_e,path=" + folder.path());
    EXPECT_EQ(loaded.sample.details["kinds"][0], "4-8k");
  }
  EXPECT_EQ(task_methods().make("longbench:path=" + folder.path()).size(), 21u);
}

TEST(LongBench, ClassesAreRequiredWhereTheyAreScored) {
  const SetFolder folder;
  folder.write("trec.jsonl",
               R"({"input": "I", "context": "C", "answers": ["Date"], "all_classes": null, "length": 1})");
  const std::string error = loading_error("longbench:path=" + folder.path());
  EXPECT_TRUE(has(error, "trec.jsonl: line 1") && has(error, "all_classes")) << error;
}

TEST(LongBenchV2, ChoicesAreAnsweredByTheirLetter) {
  const SetFolder folder;
  const std::string record =
      R"({"_id": "1", "domain": "D", "difficulty": "hard", "length": "long", "question": "Q?",
    "choice_A": "w", "choice_B": "x", "choice_C": "y", "choice_D": "z", "answer": "C", "context": "Text."})";
  folder.write("data.json", "[" + record + "]");
  const LoadedSample loaded = load("longbench_v2:path=" + folder.path());
  EXPECT_TRUE(loaded.sample.context.ends_with("Text."));
  EXPECT_TRUE(has(loaded.sample.question, "(C) y"));
  EXPECT_EQ(loaded.task->score(loaded.sample, {"The correct answer is (C)", {}}).details["score of hard"], 1);
  EXPECT_EQ(loaded.task->score(loaded.sample, {"The correct answer is (C)", {}}).details["score of long"], 1);
  EXPECT_EQ(loaded.score("The correct answer is (B)"), 0);
  std::string wrong = record;
  wrong.replace(wrong.find("\"C\""), 3, "\"E\"");
  folder.write("data.json", "[" + record + "," + wrong + "]");
  const std::string error = loading_error("longbench_v2:path=" + folder.path());
  EXPECT_TRUE(has(error, "record 2") && has(error, "answer") && has(error, "'E'")) << error;
}

TEST(InfiniteBench, EveryTaskScoresItsReferenceAsOne) {
  const SetFolder folder;
  const auto check = [&](const std::string& name, const std::string& answer, int64_t reserve) {
    folder.write(name + ".jsonl", R"({"id": 0, "context": "Long text.", "input": "Ask?", "answer": )" + answer +
                                      R"(, "options": ["f1", "f2", "f3", "f4"]})");
    const LoadedSample loaded = load("infinitebench:set=" + name + ",path=" + folder.path());
    EXPECT_EQ(loaded.sample.reserve, reserve);
    EXPECT_TRUE(has(loaded.sample.context, "Long text."));
    EXPECT_EQ(!loaded.sample.lead.empty(), loaded.sample.question.ends_with("\n\n"));
    return loaded;
  };
  check("passkey", R"(["71432"])", 6);
  check("number_string", R"(["1114443"])", 12);
  check("kv_retrieval", R"("9f4a-92ea")", 50);
  check("longbook_sum_eng", R"(["A man lives.\nHe dies."])", 1200);
  check("longbook_qa_chn", R"(["北京"])", 40);
  EXPECT_DOUBLE_EQ(check("longbook_qa_eng", R"(["The cat", "a dog"])", 40).score("dog"), 1);
  EXPECT_DOUBLE_EQ(check("longdialogue_qa_eng", R"(["MARGE"])", 40).score("Marge."), 1);
  EXPECT_DOUBLE_EQ(check("math_find", "[12]", 3).score("12"), 1);
  EXPECT_DOUBLE_EQ(check("math_find", "[12.5]", 3).score("11.5"), 0);
  EXPECT_DOUBLE_EQ(check("math_calc", "[[1, 3, -1, -11]]", 30000).score("[1, 3, 2]"), 0.5);
  EXPECT_DOUBLE_EQ(check("code_run", "[-3]", 5).score(" -3."), 1);
  EXPECT_DOUBLE_EQ(check("longbook_choice_eng", R"(["f2"])", 40).score("B"), 1);
  EXPECT_DOUBLE_EQ(check("code_debug", R"(["f3", "C"])", 5).score("B. f2"), 0);
}

TEST(InfiniteBench, QuestionsAboutOneBookShareAGroup) {
  const SetFolder folder;
  folder.write("longbook_qa_eng.jsonl",
               "{\"context\": \"Book\", \"input\": \"1?\", \"answer\": [\"x\"]}\n"
               "{\"context\": \"Other\", \"input\": \"2?\", \"answer\": [\"x\"]}\n"
               "{\"context\": \"Book\", \"input\": \"3?\", \"answer\": [\"x\"]}\n");
  const auto task = task_methods().make("infinitebench:path=" + folder.path()).front();
  EXPECT_TRUE(has(task->make({}, kLength, 1).question, "3?"));
  EXPECT_NE(task->make({}, kLength, 0).group, "");
  EXPECT_EQ(task->make({}, kLength, 0).group, task->make({}, kLength, 1).group);
  EXPECT_EQ(task->make({}, kLength, 2).group, "");
}

TEST(InfiniteBench, AnswersThatAreNotAnOptionAreErrors) {
  const SetFolder folder;
  const auto error = [&](const std::string& answer, const std::string& options) {
    folder.write("code_debug.jsonl",
                 R"({"context": "C", "input": "I", "answer": )" + answer + R"(, "options": )" + options + "}");
    return loading_error("infinitebench:path=" + folder.path());
  };
  EXPECT_TRUE(has(error(R"("g")", R"(["a", "b", "c", "d"])"), "none of the options"));
  EXPECT_TRUE(has(error(R"("a")", R"(["a"])"), "expected 4"));
  EXPECT_TRUE(has(error(R"(["a", "Z"])", R"(["a", "b", "c", "d"])"), "none of the options"));
  EXPECT_TRUE(has(error("{}", R"(["a", "b", "c", "d"])"), "answer"));
}

TEST(Loogle, QuestionsAreReadFromAPythonLiteralAndShareTheirText) {
  const SetFolder folder;
  folder.write(
      "longdep_qa.jsonl",
      R"({"input": "A town grew.", "title": "T", "qa_pairs": "[{'Q': 'What\\'s up?', 'A': 'it grew', 'S': [],)"
      R"( 'type': 'computation'}, {'Q': \"Order?\", 'A': '2,1,3', 'type': 'timeline_reorder'}]")"
      R"(, "output": "none"})");
  const LoadedSample first = load("loogle:path=" + folder.path());
  EXPECT_EQ(first.sample.reserve, 500);
  EXPECT_TRUE(has(first.sample.question, "What's up?"));
  EXPECT_DOUBLE_EQ(first.score("it fell"), 0.5);  // recall of "it grew"
  EXPECT_DOUBLE_EQ(first.detail("it grew", "bleu_1"), 1);
  const LoadedSample second = load("loogle:path=" + folder.path(), 1);
  EXPECT_EQ(first.sample.group, second.sample.group);
  EXPECT_DOUBLE_EQ(second.detail("2, 1, 3", "order"), 1);
}

TEST(Loogle, ClozeComparesTheNamesOfTheMasks) {
  const SetFolder folder;
  folder.write(
      "shortdep_cloze.jsonl",
      R"({"input": "Bob met Ann Lee.", "qa_pairs": "[{'Q': '<mask-0> met <mask-1>', 'A': {'<mask-0>': 'Bob',)"
      R"( '<mask-1>': 'Ann Lee'}}]"})");
  const LoadedSample loaded = load("loogle:path=" + folder.path());
  EXPECT_EQ(loaded.sample.reserve, 50);
  EXPECT_DOUBLE_EQ(loaded.score("It is {'<mask-0>': 'Bob', '<mask-1>': 'Ann'}."), 0.5);
  EXPECT_DOUBLE_EQ(loaded.detail("{'<mask-0>': 'Bob', '<mask-1>': 'Ann'}", "partial"), 1);
  EXPECT_DOUBLE_EQ(loaded.score("{'<mask-0>': Bob}"), 0);
}

TEST(Loogle, SummariesUseTheOutputAndAPublishedPrompt) {
  const SetFolder folder;
  folder.write("longdep_summarization.jsonl",
               R"({"input": "P", "qa_pairs": "none", "output": "It proves a law."})");
  folder.write("config/task2prompt.json", R"({"longdep_summarization": "Sum. {input} End"})");
  const LoadedSample loaded = load("loogle:path=" + folder.path() + ",config=" + folder.path() + "/config");
  EXPECT_EQ(loaded.sample.prompt(), "Sum. P End");
}

TEST(Loogle, ErrorsNameLineFieldAndByte) {
  const SetFolder folder;
  folder.write("shortdep_qa.jsonl", R"({"input": "P", "qa_pairs": "[{'Q': 'a'"})");
  std::string error = loading_error("loogle:path=" + folder.path());
  EXPECT_TRUE(has(error, "line 1") && has(error, "qa_pairs") && has(error, "byte 10")) << error;
  folder.write("shortdep_qa.jsonl", R"({"input": "P", "qa_pairs": "[{'Q': 'a'}, 3]"})");
  error = loading_error("loogle:path=" + folder.path());
  EXPECT_TRUE(has(error, "a question has no 'A'")) << error;
}

TEST(M4le, AnswersAreCutAtTheStopTextsOfTheTask) {
  const SetFolder folder;
  const auto check = [&](const std::string& name, const std::string& answers) {
    folder.write(name + ".jsonl",
                 R"({"instruction": "Do.", "input": "Text", "length_bucket": 1000, "answers": )" + answers + "}");
    return load("m4le:set=" + name + ",path=" + folder.path());
  };
  const LoadedSample hotpot = check("hotpotqa", R"(["Ann"])");
  EXPECT_EQ(hotpot.sample.prompt(), "Do.\nText");
  EXPECT_EQ(hotpot.sample.details["kinds"][0], "1000");
  EXPECT_DOUBLE_EQ(hotpot.score("It is ann. No"), 1);
  EXPECT_DOUBLE_EQ(hotpot.score("Bob. Ann"), 0);
  EXPECT_DOUBLE_EQ(check("marc", R"(["a1, b2."])").score("b2,a1. More, text"), 1);
  EXPECT_DOUBLE_EQ(check("mnds-news_semantic-multiple_cls+cnt", R"(["3."])").score("3"), 1);
  folder.write("clts+.jsonl", R"({"instruction": "Do.", "input": "Text", "answers": ["x"]})");
  EXPECT_EQ(task_methods()
                .make("m4le:set=clts++hotpotqa+mnds-news_semantic-multiple_cls+cnt,path=" + folder.path())
                .size(),
            3u);
  EXPECT_DOUBLE_EQ(check("news2016", R"(["北京 下雪"])").score("标题是\"北京 下雪\"吗"), 1);
  EXPECT_DOUBLE_EQ(check("arxiv", R"(["one two three four"])").score("one two"), 0.5);
  EXPECT_NEAR(check("tedtalks-en2zh", R"(["我们爱你们。"])").score("我们爱你们。"), 1, 1e-12);
}

const char* kPath = R"([{"context_nl": "You can travel from X to Y by bus.", "question_repr": ["X", "Z"],
  "answer_nl": "From X, take a bus to Y.\nFrom Y, take a bus to W.\nFrom W, take a bus to V.\nFrom V, take a bus to Z."}])";

TEST(LongProc, PartialScoreOfARouteEndsAtItsFirstWrongLine) {
  const SetFolder folder;
  folder.write("path_traversal/path_traversal_2k.json", kPath);
  const LoadedSample loaded = load("longproc:path=" + folder.path());
  EXPECT_EQ(loaded.task->name(), "longproc/path_traversal_2k");
  EXPECT_EQ(loaded.sample.reserve, 3072);
  std::string wrong = loaded.sample.references.front();
  wrong.replace(wrong.find("From W"), 6, "From Q");  // the third of four lines
  EXPECT_EQ(loaded.score(wrong), 0);
  EXPECT_DOUBLE_EQ(loaded.detail(wrong, "partial"), 3 / 4.0);
  EXPECT_EQ(loaded.score("From X, take a bus to Y."), 0);  // no tags
}

TEST(LongProc, ThePublishedPromptIsAYamlBlock) {
  const SetFolder folder;
  folder.write("path_traversal_0.5k.json", kPath);
  folder.write("prompts.yaml",
               "# own\nUSER_PROMPT: |-\n  [A] {{x}}\n\n    {city_context}\n  {src_city}-{dst_city}\nOTHER: y\n");
  const LoadedSample loaded = load("longproc:path=" + folder.path());
  EXPECT_EQ(loaded.sample.prompt(), "[A] {x}\n\n  You can travel from X to Y by bus.\nX-Z");
}

const char* kTrace =
    R"("<Search Procedure>\nInitial number set: [1, 2]\n |- Pick two numbers (1, 2)\n  |- Try 1 + 2 = 3. Add 3\n)"
    R"(   |- Try 3 - 4 = 1. drop this branch.\n</Search Procedure>\n\nNow we have found the target\n)"
    R"(<Solution>\n2 * 3 = 6\n6 + 4 = 10\n10 / 5 = 2\n</Solution>\n")";

TEST(LongProc, CountdownChecksEquationsAndThenTheSearch) {
  const SetFolder folder;
  std::string records;
  for (const char* numbers : {"[3, 2, 4, 5]", "[2, 3, 4, 5]", "[5, 4, 3, 2]"}) {
    records += std::string(records.empty() ? "[" : ",") + R"({"nums": )" + numbers +
               R"(, "target": 2, "demonstration": )" + kTrace + "}";
  }
  folder.write("countdown_0.5k.json", records + "]");
  const LoadedSample loaded = load("longproc:path=" + folder.path());
  EXPECT_TRUE(has(loaded.sample.context, "Numbers: [2, 3, 4, 5]"));
  EXPECT_FALSE(has(loaded.sample.context, "Numbers: [3, 2, 4, 5]"));  // its own solution is not an example
  EXPECT_TRUE(has(loaded.sample.question, "Numbers: [3, 2, 4, 5]\nTarget: 2"));
  EXPECT_DOUBLE_EQ(loaded.score("<Solution>\n5 * 2 = 10\n10 - 4 = 6\n6 / 3 = 2\n</Solution>"),
                   1);  // another solution
  for (const char* wrong :
       {"5 * 2 = 11\n10 - 4 = 6\n6 / 3 = 2", "5 * 2 = 10\n10 - 4 = 6", "5 - 3 = 2\n5 - 3 = 2\n4 / 2 = 2",
        "5 * 2 = 10\n10 - 4 = 6\n6 / 0 = 2", "5 * 2 = 99999999999999999999\n1 = 1\n2 = 2"}) {
    EXPECT_EQ(loaded.score("<Solution>\n" + std::string(wrong) + "\n</Solution>"), 0) << wrong;
  }
  const std::string head = "# Search Procedure\nInitial number set: [1, 2]\n |- Pick two numbers (1, 2)\n";
  EXPECT_DOUBLE_EQ(loaded.detail(head + "  |- Try 1 + 2 = 4. Add 4\n   |- Try 3 - 4 = 1. Add 1", "partial"),
                   2 / 3.0);
  EXPECT_DOUBLE_EQ(loaded.detail("# Search Procedure\nother", "partial"), 0);
}

TEST(LongProc, BeliefsAreComparedWithoutFillerWords) {
  const SetFolder folder;
  folder.write("tom_tracking_8k.json",
               R"([{"story_components": "Agents", "story": "S", "question": "Where?", "solution":
    "X:\n- Step 0: {Leon location: hall}\n- Step 1: {Leon location: the attic}\nFinal Answer: attic"}])");
  const LoadedSample loaded = load("longproc:path=" + folder.path());
  EXPECT_EQ(loaded.sample.reserve, 9216);
  EXPECT_DOUBLE_EQ(loaded.score("- step 0 (Leon: hall)\n- step 1 Leon is in attic"), 1);
  EXPECT_DOUBLE_EQ(loaded.detail("- step 0 (Leon: hall)\n- step 1 Leon is in hall", "partial"), 0.5);
}

TEST(LongProc, TablesAreSetsOfRows) {
  const SetFolder folder;
  folder.write("html_to_tsv/webpage/a.html", "<p>page</p>");
  const std::string record = R"([{"html_path": "webpage/a.html", "task_topic": "t", "task_description": "d",
    "filtering_instruction": "", "tsv_header": "a\tb", "gt": "a\tb\nThe X\t1\ny\t2\nz\t3\nw\t4"}])";
  folder.write("html_to_tsv/html_to_tsv_0.5k.json", record);
  const LoadedSample loaded = load("longproc:path=" + folder.path());
  EXPECT_TRUE(has(loaded.sample.context, "<p>page</p>"));
  EXPECT_DOUBLE_EQ(loaded.score("```tsv\na\tb\nz\t3\nx.\t1\n```"), 2 * 1 * 0.5 / 1.5);
  EXPECT_DOUBLE_EQ(loaded.score("a\tb\nz\t3\nbroken\ny\t2"), 2 * (2 / 3.0) * 0.5 / (2 / 3.0 + 0.5));
  for (const char* path : {"../a.html", "/etc/hosts", ""}) {
    std::string bad = record;
    bad.replace(bad.find("webpage/a.html"), 14, path);
    folder.write("html_to_tsv/html_to_tsv_0.5k.json", bad);
    EXPECT_TRUE(has(loading_error("longproc:path=" + folder.path()), "html_path")) << path;
  }
}

TEST(LongProc, PlansAreCitiesAndDays) {
  const SetFolder folder;
  const std::string trip =
      R"({"disambig_question_text": "Visit.", "ground_truth_cities": "Rome**Bonn", "ground_truth_durations":
    "3**4", "estimated_output_tokens": 900, "ground_truth_plan": "Here:\n\n**Day 1-3:** Arriving in Rome.\n**Day 3:** Fly from Rome to Bonn.\n**Day 3-6:** Visit Bonn."})";
  folder.write("travel_planning_all.json", "[" + trip + "]");
  folder.write("travel_planning_icl_examples.json", "[" + trip + "]");
  const LoadedSample loaded = load("longproc:path=" + folder.path());
  EXPECT_EQ(loaded.task->name(), "longproc/travel_planning_2k");
  const std::string late = "<Plan>\nDay 1-3: Rome\nDay 3: from Rome to Bonn\nDay 3-7: Bonn\n</Plan>";
  EXPECT_EQ(loaded.score(late), 0);
  EXPECT_DOUBLE_EQ(loaded.detail(late, "partial"), 0.5);
}

TEST(LongProc, ProgramsAreNotRun) {
  const SetFolder folder;
  EXPECT_TRUE(has(loading_error("longproc:set=pseudo_to_code_2k,path=" + folder.path()), "sandboxed compiler"));
}

TEST(HelloBench, LongAnswersWithoutRepetitionScoreOne) {
  const SetFolder folder;
  folder.write("heuristic_text_generation_2k.jsonl",
               R"({"id": "h", "category": "essay", "instruction": "Write."})");
  const LoadedSample loaded = load("hellobench:path=" + folder.path());
  EXPECT_EQ(loaded.sample.prompt(), "Write.");
  EXPECT_EQ(loaded.sample.reserve, 16384);
  std::string text;
  for (int i = 0; i < 2000; ++i) {
    text += "w";
    for (int k = i; k > 0; k /= 26) text += static_cast<char>('a' + k % 26);
    text += " ";
  }
  text += "end.";
  EXPECT_DOUBLE_EQ(loaded.score(text), 1);
  EXPECT_DOUBLE_EQ(loaded.detail(text, "words"), 2001);
  EXPECT_DOUBLE_EQ(loaded.detail(text, "ends_sentence"), 1);
  std::string again;
  for (int i = 0; i < 500; ++i) again += "one two three four ";
  EXPECT_LT(loaded.score(again), 0.01);
}

TEST(AdaLeval, SegmentsAreSortedAndAnswersNamed) {
  const SetFolder folder;
  folder.write("textsort_2k.json",
               R"([{"book_id": 1, "para_offset": [1], "prompt": "Sort.", "answer": [2, 1, 4, 3]}])");
  folder.write(
      "stackselect_1k.json",
      R"([{"question_id": "q", "question": "Why?", "answer": "A2", "tags": [], "all_answers": ["x", "y", "z"]}])");
  const LoadedSample sort = load("ada_leval:set=textsort_2k,path=" + folder.path());
  EXPECT_EQ(sort.sample.prompt(), "Sort.");
  EXPECT_EQ(sort.score("Answer: [2, 1, 3, 4]"), 0);
  const LoadedSample select = load("ada_leval:set=stackselect_1k,path=" + folder.path());
  EXPECT_TRUE(has(select.sample.context, "A2:\ny"));
  EXPECT_EQ(select.score("A3"), 0);
  folder.write("stackselect_1k.json", R"([{"question": "Why?", "answer": "A4", "all_answers": ["x", "y", "z"]}])");
  EXPECT_TRUE(has(loading_error("ada_leval:path=" + folder.path()), "expected A1 to A3"));
  folder.write("textsort_2k.json", R"([{"prompt": "Sort.", "answer": [2, 2, 4, 3]}])");
  EXPECT_TRUE(has(loading_error("ada_leval:path=" + folder.path() + "/textsort_2k.json"), "permutation"));
}

TEST(NeedleThreading, ValuesAreScoredAtTheirPositions) {
  const SetFolder folder;
  const auto check = [&](const std::string& name, const std::string& values) {
    folder.write(
        name + ".json",
        R"([{"id": 0, "haystack": "{\"k\": \"v\"}", "question": "Value:", "needle_depth": "25", "values": )" +
            values + "}]");
    return load("needle_threading:set=" + name + ",path=" + folder.path());
  };
  const LoadedSample one = check("Single_Needle", R"("1759-ae2")");
  EXPECT_EQ(one.sample.prompt(), "{\"k\": \"v\"}\nValue:");
  EXPECT_EQ(one.sample.depth, 0.25);
  EXPECT_DOUBLE_EQ(one.score("'1759-ae2'. That is it"), 1);
  folder.write("Conditional_Needles.json", R"([{"haystack": "h", "question": "q", "values": ["a1", "b2"]}])");
  const auto marked = task_methods().make("needle_threading:set=Conditional_Needles,path=" + folder.path()).front();
  EXPECT_DOUBLE_EQ(score_of(*marked, marked->make({}, kLength, 0), "b2, a1"), 1);  // in any order
  EXPECT_DOUBLE_EQ(score_of(*marked, marked->make({}, kLength, 0), "b2, c3"), 0.5);
  for (const char* several : {R"(["a1", "b2"])", R"("['a1', 'b2']")"}) {
    const TaskList tasks = [&] {
      folder.write("Multi_Threads.json",
                   std::string(R"([{"haystack": "h", "question": "q", "values": )") + several + "}]");
      return task_methods().make("needle_threading:set=Multi_Threads,path=" + folder.path());
    }();
    const Sample sample = tasks.front()->make({}, kLength, 0);
    EXPECT_DOUBLE_EQ(score_of(*tasks.front(), sample, "['a1', 'b2']"), 1);
    EXPECT_DOUBLE_EQ(score_of(*tasks.front(), sample, "['b2', 'b2']"), 0.5);
    EXPECT_DOUBLE_EQ(score_of(*tasks.front(), sample, ""), 0);
  }
}

TEST(RulerFile, TasksAreNamedByTheirFolders) {
  const SetFolder folder;
  const std::string record =
      R"({"index": 0, "input": "Text", "outputs": ["11", "22"], "length": 500, "answer_prefix": " They are"})";
  folder.write("niah_multikey_1/validation.jsonl", record + "\n");
  folder.write("qa_1/validation.jsonl", record + "\n");
  const TaskList tasks = task_methods().make("ruler_file:path=" + folder.path());
  ASSERT_EQ(tasks.size(), 2u);
  EXPECT_EQ(tasks[0]->name(), "ruler_file/niah_multikey_1");
  const Sample sample = tasks[0]->make({}, kLength, 0);
  EXPECT_EQ(sample.lead, " They are");
  EXPECT_EQ(sample.reserve, 128);
  EXPECT_EQ(sample.prompt(), "Text They are");
  EXPECT_DOUBLE_EQ(score_of(*tasks[0], sample, "11"), 0.5);
  EXPECT_DOUBLE_EQ(score_of(*tasks[0], sample, "22 and 11"), 1);
  EXPECT_DOUBLE_EQ(score_of(*tasks[1], sample, "11"), 1);
  EXPECT_EQ(tasks[1]->make({}, kLength, 0).reserve, 32);
  EXPECT_EQ(task_methods().make("ruler_file:path=" + folder.path() + "/qa_1").front()->name(), "ruler_file/qa_1");
  EXPECT_EQ(task_methods().make("ruler_file:set=qa_1,path=" + folder.path()).size(), 1u);
  EXPECT_TRUE(has(loading_error("ruler_file:set=qa_9,path=" + folder.path()), "qa_9"));
}

}  // namespace
}  // namespace fathom::eval
