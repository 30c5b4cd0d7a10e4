#include "cases.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "paths.h"
#include "program.h"

namespace fathom::test {
namespace {

#ifdef FATHOM_HAS_TRAINER
constexpr bool kHasTrainer = true;
#else
constexpr bool kHasTrainer = false;
#endif

std::string case_path(const std::string& name) { return concat(kCases, "/", name, ".txt"); }

bool installed(const std::string& program) {
  const std::string folders = kSystemPath;
  for (size_t begin = 0; begin < folders.size();) {
    const size_t end = std::min(folders.find(':', begin), folders.size());
    if (std::filesystem::exists(folders.substr(begin, end - begin) + "/" + program)) return true;
    begin = end + 1;
  }
  return false;
}

}  // namespace

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(source_path(kCases))) {
    const std::filesystem::path& path = entry.path();
    if (path.extension() == ".txt" && path.filename() != "not-run.txt") names.push_back(path.stem().string());
  }
  std::ranges::sort(names);
  return names;
}

CaseFile read_case(const std::string& name) {
  return parse_case(case_path(name), read_file(source_path(case_path(name))));
}

std::string missing_need(const CaseFile& test) {
  for (const std::string& need : test.needs) {
    if (need == "trainer" && !kHasTrainer) return "this build has no trainer";
    if (need == "no-trainer" && kHasTrainer) return "this build has a trainer";
    if (need == "jq" && !installed("jq")) return "jq is not installed";
  }
  return "";
}

}  // namespace fathom::test
