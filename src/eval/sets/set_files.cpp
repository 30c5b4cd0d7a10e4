#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/format.h"
#include "eval/sets/records.h"

namespace fathom::eval {
namespace {

namespace fs = std::filesystem;

/// Splits a list joined by '+'. Known names may contain '+' as well; the longest known name that fits is taken.
std::vector<std::string> split_names(std::string_view list, const std::vector<std::string>& names) {
  std::vector<std::string> requested;
  while (!list.empty()) {
    size_t length = std::min(list.find('+'), list.size());
    for (const std::string& name : names) {
      const bool fits = list.starts_with(name) && (list.size() == name.size() || list[name.size()] == '+');
      if (fits) length = std::max(length, name.size());
    }
    requested.emplace_back(list.substr(0, length));
    list.remove_prefix(std::min(list.size(), requested.back().size() + 1));
  }
  return requested;
}

/// Throws Error (usage) for a name that is not a set.
void check_known(const std::string& name, const SetSource& source, const std::vector<std::string>& names) {
  if (std::ranges::find(names, name) != names.end()) return;
  const std::vector<std::string> near = nearest_names(name, names);
  fail_usage(source.method, ": unknown set ", quote(name), near.empty() ? "" : "; did you mean ", comma_list(near),
             "; expected one of ", comma_list(names));
}

}  // namespace

std::vector<Parameter> set_parameters(const SetSource& source) {
  return {{.name = "path",
           .type = Parameter::Type::kString,
           .summary = concat("file or folder: ", source.expected, " of ", source.published)},
          {.name = "set",
           .type = Parameter::Type::kString,
           .summary = "names of the sets, joined by '+'; default: all that are found"}};
}

std::vector<SetFile> find_set_files(const Values& values, const SetSource& source,
                                    const std::vector<std::string>& names,
                                    const std::vector<std::string>& extensions,
                                    const std::vector<std::string>& below) {
  const std::string expected = concat("expected ", source.expected, " of ", source.published);
  if (!values.has("path")) fail_usage(source.method, ": path is missing: ", expected);
  const std::string& path = values.string("path");
  std::vector<std::string> requested;
  if (values.has("set")) requested = split_names(values.string("set"), names);
  for (const std::string& name : requested) check_known(name, source, names);
  std::error_code error;
  if (fs::is_regular_file(path, error)) {
    const std::string stem = fs::path(path).stem();
    check_known(stem, source, names);
    if (!requested.empty() && requested != std::vector{stem}) {
      fail_usage(source.method, ": set=", values.string("set"), ", but the file is of ", stem, ": ", path);
    }
    return {{stem, path}};
  }
  if (!fs::is_directory(path, error)) fail(source.method, ": ", path, ": no such file or folder; ", expected);
  std::vector<SetFile> files;
  for (const std::string& name : requested.empty() ? names : requested) {
    std::vector<fs::path> folders{fs::path(path)};
    for (const std::string& subfolder : below) folders.push_back(fs::path(path) / subfolder);
    bool found = false;
    for (const fs::path& folder : folders) {
      for (const std::string& extension : extensions) {
        const fs::path file = folder / (name + extension);
        if (found || !fs::is_regular_file(file, error)) continue;
        files.push_back({name, file.string()});
        found = true;
      }
    }
    if (!found && !requested.empty()) {
      fail(source.method, ": ", path, ": contains no ", name, extensions.front(), "; ", expected);
    }
  }
  if (files.empty()) fail(source.method, ": ", path, ": contains no file of the set; ", expected);
  return files;
}

}  // namespace fathom::eval
