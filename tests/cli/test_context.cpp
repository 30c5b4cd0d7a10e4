// Context files that other programs wrote.
#include <gtest/gtest.h>

#include <string>

#include "paths.h"
#include "program.h"
#include "session/session.h"

namespace fathom::test {
namespace {

TEST(CliContext, DamagedNotesAreAnErrorThatNamesTheFile) {
  const Folder folder;
  const std::string path = folder.path("a.ctx");
  Session session(Model::open(seedling_path()), std::make_shared<Runtime>(1));
  session.append(std::vector<int32_t>{5, 6, 7});
  SavedText text;
  text.notes["files"] = Json::array({"a.txt", 5});
  session.save(path, text);
  expect_error(run({"context", "show", path}), 1, {path + ": the context file is damaged: its notes: "});
}

}  // namespace
}  // namespace fathom::test
