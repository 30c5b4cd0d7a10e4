#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/format.h"
#include "eval/sets/records.h"
#include "eval/sets/sets.h"

namespace fathom::eval {
namespace {

namespace fs = std::filesystem;

SetSource source() {
  return {"ruler_file", "<task>/validation.jsonl, such as niah_single_1/validation.jsonl,",
          "RULER (written by the scripts of github.com/NVIDIA/RULER)"};
}

/// Returns the maximum number of tokens of an answer to a task.
int64_t reserve_of(std::string_view task) {
  if (task.starts_with("vt")) return 30;
  if (task.starts_with("cwe")) return 120;
  if (task.starts_with("fwe")) return 50;
  return task.starts_with("qa") ? 32 : 128;
}

/// Returns the files and the names of their tasks: the name of the folder for validation.jsonl, the name of the
/// file without extension for any other file.
std::vector<SetFile> ruler_files(const std::string& path) {
  const auto task_of = [](const fs::path& file) {
    const fs::path whole = fs::absolute(file);
    return (file.stem() == "validation" ? whole.parent_path().filename() : whole.stem()).string();
  };
  if (is_file(path)) return {{task_of(path), path}};
  std::vector<SetFile> files;
  const auto add = [&](const fs::path& folder) {
    const fs::path file = folder / "validation.jsonl";
    if (is_file(file.string())) files.push_back({task_of(file), file.string()});
  };
  add(path);
  std::error_code error;
  for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error))
    add(entry->path());
  std::ranges::sort(files, {}, &SetFile::name);
  return files;
}

std::vector<SetFile> requested_files(const Values& values) {
  const std::string expected = concat("expected ", source().expected, " of ", source().published);
  if (!values.has("path")) fail_usage("ruler_file: path is missing: ", expected);
  std::vector<SetFile> files = ruler_files(values.string("path"));
  if (files.empty()) fail("ruler_file: ", values.string("path"), ": contains no such file; ", expected);
  if (!values.has("set")) return files;
  const std::string requested = "+" + values.string("set") + "+";
  std::erase_if(files,
                [&](const SetFile& file) { return requested.find("+" + file.name + "+") == std::string::npos; });
  if (files.empty()) fail("ruler_file: ", values.string("path"), ": contains none of set=", values.string("set"));
  return files;
}

}  // namespace

MethodInfo ruler_file_info() {
  return {.name = "ruler_file",
          .summary = "samples written by RULER's own scripts",
          .paper = "RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024",
          .needs = "files of the set",
          .parameters = set_parameters(source())};
}

TaskList make_ruler_file(const Values& values) {
  TaskList tasks;
  for (const SetFile& file : requested_files(values)) {
    const bool any = file.name.starts_with("qa");
    auto task = std::make_shared<SetTask>("ruler_file/" + file.name, score_by(any ? "substr_any" : "substr_all"));
    read_records(file.path, [&](const SetRecord& record) {
      Sample sample = published_sample(reserve_of(file.name), record.texts("outputs"), record.number());
      sample.context = record.text("input");
      sample.lead = record.text_or("answer_prefix", "");
      if (record.find("length") != nullptr) sample.details["length"] = record.integer("length");
      task->add(std::move(sample));
    });
    task->finish(file.path);
    tasks.push_back(std::move(task));
  }
  return tasks;
}

}  // namespace fathom::eval
