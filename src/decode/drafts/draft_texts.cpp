#include "decode/drafts/draft_texts.h"

#include <filesystem>
#include <string>

#include "base/error.h"
#include "base/file_map.h"
#include "base/format.h"

namespace fathom {
namespace {

constexpr size_t kMaxBytes = size_t{256} << 20;

/// Splits a list of paths joined by '+'. The whole text is one path if such a file exists.
std::vector<std::string> split_paths(const std::string& list) {
  std::error_code error;
  if (std::filesystem::exists(list, error)) return {list};
  std::vector<std::string> paths;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find('+', begin), list.size());
    paths.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return paths;
}

}  // namespace

Parameter draft_file_parameter(std::string summary) {
  return {.name = "file", .type = Parameter::Type::kString, .summary = std::move(summary)};
}

std::vector<std::vector<int32_t>> read_draft_files(std::string_view method, const Values& values,
                                                   const DraftSetup& setup) {
  std::vector<std::vector<int32_t>> texts;
  if (!values.has("file")) return texts;
  if (!setup.tokenizer) fail("draft method ", method, ": file needs a tokenizer, found none");
  size_t bytes = 0;
  for (const std::string& path : split_paths(values.string("file"))) {
    if (path.empty())
      fail_usage("draft method ", method, ": expected file names joined by '+', found an empty one");
    const FileMap file(path);
    bytes += file.bytes().size();
    if (bytes > kMaxBytes) {
      fail("draft method ", method, ": ", path, ": expected files of at most ", format_bytes(kMaxBytes),
           " together, found ", format_bytes(static_cast<double>(bytes)), " or more");
    }
    texts.push_back(setup.tokenizer->encode(file.text(), {.add_bos_eos = false}));
  }
  return texts;
}

}  // namespace fathom
