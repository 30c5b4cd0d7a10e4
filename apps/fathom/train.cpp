// fathom train: starts the program fathom-train in the same folder. Only that program loads libtorch.
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "commands.h"

namespace fathom {
namespace {

[[noreturn]] void start_trainer(const std::vector<std::string>& arguments) {
  std::error_code error;
  const std::filesystem::path here = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  const std::string program = (here / "fathom-train").string();
  if (error || ::access(program.c_str(), X_OK) != 0) {
    fail("this build has no trainer (", program,
         " is missing): run scripts/setup --train, then scripts/build train");
  }
  ::setenv("OMP_WAIT_POLICY", "passive", 0);  // idle threads of libtorch must not spin, the trainer has its own
  std::vector<std::string> words{program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  fail(program, ": cannot be started: ", std::strerror(errno));
}

}  // namespace

void add_train(Command program) {
  Command command = program.add_command("train", "Train a model and its tokenizer on texts and tasks");
  command.take_all_arguments();
  command.callback([command] { start_trainer(command.arguments()); });
}

}  // namespace fathom
