#include <gtest/gtest.h>

#include <csignal>
#include <string>

#include "program.h"

namespace fathom::test {
namespace {

/// A chat template that suits the default model: messages as plain text, in the form of its training.
constexpr const char* kTemplate =
    "{% for m in messages %}"
    "{% if m.role == 'user' %}{{ m.content }}\nQuestion: What is the magic word of Anna?\nAnswer: The magic word "
    "of Anna is"
    "{% elif m.role == 'assistant' %}{{ m.content }}.\n"
    "{% else %}{{ m.content }}\n{% endif %}"
    "{% endfor %}";

class CliChat : public testing::Test {
 protected:
  std::vector<std::string> chat(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"chat", "--template", file, "--stop", ".", "-n", "20"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  const Folder folder;
  const std::string file = folder.write("form.jinja", kTemplate);
};

TEST_F(CliChat, KeepsEarlierTurnsUntilReset) {
  const std::string first = output(chat(), "The magic word of Anna is lantern.\n");
  EXPECT_EQ(first, " lantern\n");
  EXPECT_EQ(output(chat(), "The magic word of Anna is lantern.\nWell.\n"), " lantern\n lantern\n");
  const std::string after = output(chat(), "The magic word of Anna is lantern.\n/reset\nWell.\n");
  EXPECT_EQ(after, first + output(chat(), "Well.\n"));
  EXPECT_EQ(after.find("lantern", 9), std::string::npos) << after;
}

TEST_F(CliChat, ResetKeepsTheSystemPrompt) {
  const std::vector<std::string> arguments = chat({"-s", "The magic word of Anna is lantern."});
  EXPECT_EQ(output(arguments, "Well.\n/reset\nWell.\n"), " lantern\n lantern\n");
}

TEST_F(CliChat, LaterTurnsEqualReadingTheWholeChat) {
  const std::string both = output(chat(), "The magic word of Anna is lantern.\nIt rained.\n");
  const std::string whole =
      "The magic word of Anna is lantern.\nQuestion: What is the magic word of Anna?\nAnswer: The magic word of "
      "Anna is "
      "lantern.\nIt rained.\nQuestion: What is the magic word of Anna?\nAnswer: The magic word of Anna is";
  EXPECT_EQ(both, " lantern\n" + output({"run", "-p", whole, "--stop", ".", "-n", "20"}));
}

TEST_F(CliChat, EndsAtExitAndAtTheEndOfTheInput) {
  EXPECT_EQ(output(chat(), "/exit\nThe magic word of Anna is lantern.\n"), "");
  EXPECT_EQ(output(chat(), ""), "");
  EXPECT_EQ(output(chat(), "The magic word of Anna is lantern."), " lantern\n");  // no newline at the end
}

TEST_F(CliChat, RunUsesTheSameTemplate) {
  EXPECT_EQ(
      output({"run", "--chat", "--template", file, "-p", "The magic word of Anna is lantern.", "--stop", "."}),
      " lantern\n");
  expect_error(run({"run", "--template", file, "-p", "a"}), 2, {"--chat"});
}

TEST_F(CliChat, CtrlCWhileWaitingEndsTheProgram) {
  Program program(chat());
  program.send("The magic word of Anna is lantern.\n");
  program.wait_for_output();
  program.kill(SIGINT);
  const Result result = program.finish(10);
  EXPECT_EQ(result.code, 130);
}

TEST_F(CliChat, MissingTemplateIsAnErrorWithARemedy) {
  expect_error(run({"chat"}, "hello\n"), 1, {"no chat template", "--template", "fathom run"});
  expect_error(run({"run", "--chat", "-p", "hello"}), 1, {"no chat template", "--template"});
  expect_error(run({"chat", "--template", folder.path("none")}), 1, {"none", "No such file"});
}

TEST_F(CliChat, InvalidTemplatesAreNamed) {
  const std::string bad = folder.write("bad.jinja", "{% for m in messages %}{{ m.content }}");
  expect_error(run({"chat", "--template", bad}, "hello\n"), 1, {"bad.jinja", "chat template"});
}

}  // namespace
}  // namespace fathom::test
