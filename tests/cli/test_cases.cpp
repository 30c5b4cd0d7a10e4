// Runs the command-line cases, the text files in cases/.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.h"
#include "case_file.h"
#include "cases.h"
#include "decode/trained_draft.h"
#include "formats/gguf.h"
#include "models/tiny_adapter.h"
#include "paths.h"
#include "program.h"

namespace fathom::test {
namespace {

constexpr const char* kSeconds = "50";  // time limit of a command and its child processes

/// Files derived from the seedling, made once per process.
class MadeModels {
 public:
  MadeModels() {
    const Gguf seedling = Gguf::open(seedling_path());
    GgufWriter chat;
    for (const std::string_view key : seedling.keys()) chat.set_value(std::string(key), *seedling.find(key));
    chat.set_string("tokenizer.chat_template", read_file(source_path(concat(kCases, "/files/template.jinja"))));
    for (const GgufTensor& tensor : seedling.tensors())
      chat.add_tensor(std::string(tensor.name), tensor.type, tensor.shape, {tensor.data, tensor.bytes});
    chat.write(folder_.path("chat.gguf"));
    const auto model = Model::open(seedling_path());
    const std::vector<std::byte> adapter = TinyAdapter().bytes(*model);
    folder_.write("adapter.gguf", {reinterpret_cast<const char*>(adapter.data()), adapter.size()});
    write_draft("heads.gguf", random_heads(model->config(), true, false));
    write_draft("transfer.gguf", random_transfer(model->config(), {model->config().layers / 2}));
    write_draft("longspec.gguf", random_longspec(model->config(), model->network().attention().back()));
    folder_.write("broken.gguf", read_file(seedling_path()).substr(0, 100000));
  }
  std::string path(const std::string& name) const { return folder_.path(name); }

 private:
  void write_draft(const std::string& name, const TrainedDraft& draft) {
    const std::vector<std::byte> bytes = draft.bytes();
    folder_.write(name, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  Folder folder_;
};

/// The working folder of a case.
class CaseFolder {
 public:
  CaseFolder() {
    static const MadeModels made;
    std::filesystem::copy(source_path(concat(kCases, "/files")), folder_.path("."),
                          std::filesystem::copy_options::recursive);
    std::filesystem::copy_file(seedling_path(), folder_.path("model.gguf"));  // a command may overwrite it
    for (const char* name :
         {"chat.gguf", "adapter.gguf", "broken.gguf", "heads.gguf", "transfer.gguf", "longspec.gguf"})
      link(name, made.path(name));
    for (const char* name : {"bench", "scripts"}) link(name, source_path(name));
  }
  std::string path() const { return folder_.path(""); }

 private:
  void link(const std::string& name, const std::string& target) const {
    std::filesystem::create_symlink(target, folder_.path(name));
  }
  Folder folder_;
};

CaseOutput run_case(const CaseFile& test, const CaseFolder& folder) {
  const std::string programs = std::filesystem::path(program_path()).parent_path().string();
  Start start{{"/usr/bin/timeout", kSeconds, "/bin/sh", "-c", test.command},
              folder.path(),
              {"PATH=" + programs + ":" + kSystemPath, "HOME=" + folder.path(), "XDG_CACHE_HOME=" + folder.path(),
               "XDG_CONFIG_HOME=" + folder.path(), "XDG_DATA_HOME=" + folder.path(), "TMPDIR=" + folder.path(),
               "LANG=C.UTF-8"}};
  if (const char* isa = std::getenv("FATHOM_ISA")) start.variables.push_back(concat("FATHOM_ISA=", isa));
  Program program(std::move(start));
  program.send(test.input);
  const Result result = program.finish();
  EXPECT_EQ(result.signal, 0);
  return {result.code, result.out, result.err, folder.path()};
}

class CliCases : public testing::TestWithParam<std::string> {};

TEST_P(CliCases, Case) {
  const CaseFile test = read_case(GetParam());
  if (const std::string missing = missing_need(test); !missing.empty()) GTEST_SKIP() << missing;
  const CaseFolder folder;
  const CaseOutput found = run_case(test, folder);
  std::string difference = differences(test, found);
  if (!difference.empty() && std::getenv("FATHOM_UPDATE_CASES")) {
    const std::string path = source_path(test.path);
    const std::string text = updated_case(test, read_file(path), found);
    std::ofstream(path, std::ios::binary) << text;
    difference = differences(parse_case(test.path, text), found);  // sections with "contains" are not updated
  }
  if (!difference.empty()) ADD_FAILURE() << difference;
}

INSTANTIATE_TEST_SUITE_P(, CliCases, testing::ValuesIn(case_names()), [](const auto& named) {
  std::string name = named.param;
  std::ranges::replace_if(
      name, [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
});

}  // namespace
}  // namespace fathom::test
