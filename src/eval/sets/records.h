#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "eval/task.h"

namespace fathom::eval {

// Code shared by the readers of published sets.

/// One object of a file. Fields are checked when they are read.
class SetRecord {
 public:
  SetRecord(const Json& object, std::string where, int64_t number)
      : object_(object), where_(std::move(where)), number_(number) {}

  /// Line number, or index in an array, from 1.
  int64_t number() const { return number_; }
  /// "path: line 3", for error messages.
  const std::string& where() const { return where_; }
  /// Returns the field, or nullptr if it is missing or null.
  const Json* find(const char* field) const;
  /// Returns a string. Like the functions below, throws Error if the field is missing or has another type.
  const std::string& text(const char* field) const;
  /// Returns the string, or `otherwise` if the field is missing.
  std::string text_or(const char* field, const std::string& otherwise) const;
  int64_t integer(const char* field) const;
  /// Returns a non-empty array of strings and numbers, or a single one as an array.
  std::vector<std::string> texts(const char* field) const;
  /// Throws Error with file, record, field and `problem`.
  [[noreturn]] void fail_at(const char* field, const std::string& problem) const;

 private:
  const Json& object_;
  std::string where_;
  int64_t number_;
};

/// Returns the string, or the number as JSON; throws Error that begins with `where` for anything else.
std::string text_of(const Json& value, const std::string& where);
/// Returns "a string", "an array", …, for error messages.
std::string kind_of(const Json& value);

/// Calls `visit` with each object of a file, which is a JSON array or JSON lines. Throws Error with file and line
/// (or the number of the record in an array) for anything that is not a JSON object, for a file without records,
/// and if the file cannot be read.
void read_records(const std::string& path, const std::function<void(const SetRecord&)>& visit);
/// Reads a JSON object of strings (or numbers, as text). Throws Error if the file is anything else.
std::map<std::string, std::string> read_string_map(const std::string& path);
/// Returns whether `path` is a regular file.
bool is_file(const std::string& path);
/// Reads a UTF-8 text file. Throws Error if it is not one.
std::string read_text_file(const std::string& path);

/// A prompt with placeholders in braces, as in Python's str.format; doubled braces are literal braces.
class PromptForm {
 public:
  /// document: the placeholder of the text to read. Throws Error that begins with `where` for a placeholder that is
  /// not in `placeholders`, for an unclosed brace, and if `document` is missing.
  PromptForm(std::string_view text, const std::string& where, const std::vector<std::string>& placeholders,
             const std::string& document);
  /// Fills the prompt: the part up to the end of the document is appended to the context, the rest to the question.
  void fill(const std::map<std::string, std::string>& values, Sample& sample) const;

 private:
  struct Piece {
    bool is_placeholder;
    std::string text;
  };
  std::vector<Piece> pieces_;
  size_t question_ = 0;  // first piece after the document
};

/// Where a set is published, for error messages.
struct SetSource {
  std::string method;     // "longbench"
  std::string expected;   // "<task>.jsonl, such as hotpotqa.jsonl,"
  std::string published;  // "LongBench (Hugging Face: THUDM/LongBench)"
};
struct SetFile {
  std::string name;  // name of the set: "hotpotqa"
  std::string path;
};
/// Returns the files of the requested sets. Values: "path", a file or folder, and "set", names joined by '+'. In
/// the folder and its subfolders `below`, the file of a set is its name with one of `extensions`. Throws Error
/// (usage) for a missing path or an unknown name, and Error with the expected file and where it is published if
/// there is no file.
std::vector<SetFile> find_set_files(const Values& values, const SetSource& source,
                                    const std::vector<std::string>& names,
                                    const std::vector<std::string>& extensions,
                                    const std::vector<std::string>& below = {});
/// Returns the parameters "path" and "set".
std::vector<Parameter> set_parameters(const SetSource& source);

/// A task whose samples are read from a file.
class SetTask : public Task {
 public:
  using Scorer = std::function<Score(const Sample& sample, const Answer& answer)>;
  SetTask(std::string name, Scorer scorer) : Task(std::move(name)), scorer_(std::move(scorer)) {}

  /// Adds a sample. Equal contexts are stored once; the samples with the same context are made consecutive and get
  /// a group.
  void add(Sample sample);
  /// Must be called once, after the last add(). Throws Error if there are no samples.
  void finish(const std::string& path);

  int64_t available() const override { return static_cast<int64_t>(samples_.size()); }
  Sample make(const TaskInput& input, int64_t length, int64_t index) const override;
  /// If the details of a sample contain "kinds", a list of names, the score is also added to the details of the
  /// score under each kind, so that summaries contain the mean per kind.
  Score score(const Sample& sample, const Answer& answer) const override;

 private:
  struct Entry {
    Sample sample;  // its context is in documents_
    size_t document;
  };
  Scorer scorer_;
  std::vector<Entry> samples_;
  std::vector<std::shared_ptr<const std::string>> documents_;
  std::map<std::string_view, size_t> known_;  // indices in documents_
};

/// Returns a scorer by the name of a metric of eval/metrics.h.
SetTask::Scorer score_by(const std::string& metric);
/// Returns a sample of a published set with its record number; the middle of its prompt may be left out.
Sample published_sample(int64_t reserve, std::vector<std::string> references, int64_t line);

}  // namespace fathom::eval
