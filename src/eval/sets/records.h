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

// What the readers of published sets share.

/// One object of a file, whose fields are checked when they are asked for.
class SetRecord {
 public:
  SetRecord(const Json& object, std::string where, int64_t number)
      : object_(object), where_(std::move(where)), number_(number) {}

  /// Its line, or its place in an array, from 1.
  int64_t number() const { return number_; }
  /// "path: line 3", for messages.
  const std::string& where() const { return where_; }
  /// The field, or nullptr if it is missing or null.
  const Json* find(const char* field) const;
  /// A string. Throws Error if it is missing or no string, as do the others for theirs.
  const std::string& text(const char* field) const;
  /// The string, or `otherwise` if there is none.
  std::string text_or(const char* field, const std::string& otherwise) const;
  int64_t integer(const char* field) const;
  /// An array of strings and numbers, not empty, or one of them alone.
  std::vector<std::string> texts(const char* field) const;
  /// Throws Error: file, record and field, then `problem`.
  [[noreturn]] void fail_at(const char* field, const std::string& problem) const;

 private:
  const Json& object_;
  std::string where_;
  int64_t number_;
};

/// The string, or the number as JSON writes it; throws Error beginning with `where` for anything else.
std::string text_of(const Json& value, const std::string& where);
/// "a string", "an array", …
std::string kind_of(const Json& value);

/// Calls `visit` with each object of a file: of a JSON array, or one a line. Throws Error naming file and line (of
/// an array, the record's number) for what is no JSON object, for a file without records, and if it cannot be read.
void read_records(const std::string& path, const std::function<void(const SetRecord&)>& visit);
/// A JSON object of strings (or numbers, as text). Throws Error if it is none.
std::map<std::string, std::string> read_string_map(const std::string& path);
/// Whether there is a regular file.
bool is_file(const std::string& path);
/// A whole UTF-8 text file. Throws Error if it is none.
std::string read_text_file(const std::string& path);

/// A prompt with slots in braces, as Python's format has it; doubled braces are braces.
class PromptForm {
 public:
  /// Throws Error naming `where` for a slot that is not among `slots`, an open brace, and if `document`, a slot, is
  /// missing.
  PromptForm(std::string_view text, const std::string& where, const std::vector<std::string>& slots,
             const std::string& document);
  /// Context: up to the end of the document; question: the rest.
  void fill(const std::map<std::string, std::string>& values, Sample& sample) const;

 private:
  struct Piece {
    bool slot;
    std::string text;
  };
  std::vector<Piece> pieces_;
  size_t question_ = 0;  // first piece behind the document
};

/// Where a set comes from, for messages.
struct SetSource {
  std::string method;     // "longbench"
  std::string expected;   // "<task>.jsonl, e.g. hotpotqa.jsonl"
  std::string published;  // "LongBench (Hugging Face: THUDM/LongBench)"
};
struct SetFile {
  std::string name;  // of the set: "hotpotqa"
  std::string path;
};
/// The files of the sets asked for: values "path", a file or a folder, and "set", names joined by '+'. In the
/// folder and in its folders `below`, a set's file is its name with one of `extensions`. Throws Error (usage) for a
/// missing path or an unknown name, and Error saying what is expected and where it is published if nothing is
/// there.
std::vector<SetFile> find_set_files(const Values& values, const SetSource& source,
                                    const std::vector<std::string>& names,
                                    const std::vector<std::string>& extensions,
                                    const std::vector<std::string>& below = {});
/// The parameters "path" and "set".
std::vector<Parameter> set_parameters(const SetSource& source);

/// Samples read from a file.
class SetTask : public Task {
 public:
  using Scorer = std::function<Score(const Sample& sample, const Answer& answer)>;
  SetTask(std::string name, Scorer scorer) : Task(std::move(name)), scorer_(std::move(scorer)) {}

  /// A sample whose context is kept once, however many have it. Of samples with the same, those added later follow
  /// the first; they have a group.
  void add(Sample sample);
  /// Throws Error if there are none. To be called once, after the last add().
  void finish(const std::string& path);

  int64_t available() const override { return static_cast<int64_t>(samples_.size()); }
  Sample make(const TaskInput& input, int64_t length, int64_t index) const override;
  /// Of a sample whose details have "kinds", a list of names, the score is told as a detail of each kind, too: the
  /// means of details are then those of the kinds.
  Score score(const Sample& sample, const Answer& answer) const override;

 private:
  struct Entry {
    Sample sample;  // without context
    size_t document;
  };
  Scorer scorer_;
  std::vector<Entry> samples_;
  std::vector<std::shared_ptr<const std::string>> documents_;
  std::map<std::string_view, size_t> known_;  // of documents_
};

/// Scores by a metric of eval/metrics.h, by its name.
SetTask::Scorer score_by(const std::string& metric);
/// A sample for a published prompt: its middle may be cut.
Sample published_sample(int64_t reserve, std::vector<std::string> references, int64_t line);

}  // namespace fathom::eval
