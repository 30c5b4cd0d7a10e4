#include "eval/sets/records.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file_map.h"
#include "base/format.h"
#include "base/utf8.h"
#include "eval/fit.h"
#include "eval/json_lines.h"
#include "eval/metrics.h"

namespace fathom::eval {
namespace {

/// Visits the objects of a JSON array. Keeps only one of them in memory.
void read_array(const std::string& path, std::string_view text,
                const std::function<void(const SetRecord&)>& visit) {
  int64_t number = 0;
  const auto at_item = [&](const Json& item) {
    const std::string where = concat(path, ": record ", ++number);
    if (!item.is_object()) fail(where, ": expected an object, found ", kind_of(item));
    visit(SetRecord(item, where, number));
  };
  try {
    Json::parse_items(text, at_item);
  } catch (const JsonError& error) {
    fail(path, ": record ", number + 1, ": invalid JSON: ", error.what());
  }
}

}  // namespace

std::string kind_of(const Json& value) {
  if (value.is_null()) return "nothing";
  if (value.is_string()) return "a string";
  if (value.is_array()) return "an array";
  if (value.is_object()) return "an object";
  return value.is_number() ? "a number" : "a boolean";
}

std::string text_of(const Json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_number()) fail(where, ": expected a string or a number, found ", kind_of(value));
  return value.dump();
}

const Json* SetRecord::find(const char* field) const {
  const Json* found = object_.find(field);
  return found && !found->is_null() ? found : nullptr;
}

void SetRecord::fail_at(const char* field, const std::string& problem) const {
  fail(where_, ": field \"", field, "\": ", problem);
}

const std::string& SetRecord::text(const char* field) const {
  const Json* value = find(field);
  if (value == nullptr) fail_at(field, "is missing, expected a string");
  if (!value->is_string()) fail_at(field, "expected a string, found " + kind_of(*value));
  return value->text();
}

std::string SetRecord::text_or(const char* field, const std::string& otherwise) const {
  return find(field) == nullptr ? otherwise : text(field);
}

int64_t SetRecord::integer(const char* field) const {
  const Json* value = find(field);
  if (value == nullptr) fail_at(field, "is missing, expected an integer");
  const bool too_large = value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX;
  if (!value->is_number_integer() || too_large) fail_at(field, "expected an integer, found " + kind_of(*value));
  return value->get<int64_t>();
}

std::vector<std::string> SetRecord::texts(const char* field) const {
  const Json* value = find(field);
  if (value == nullptr) fail_at(field, "is missing, expected a list of strings");
  const std::string where = concat(where_, ": field \"", field, "\"");
  std::vector<std::string> all;
  if (!value->is_array()) return {text_of(*value, where)};
  for (const Json& item : value->items()) all.push_back(text_of(item, where));
  if (all.empty()) fail_at(field, "expected at least one string, found an empty list");
  return all;
}

void read_records(const std::string& path, const std::function<void(const SetRecord&)>& visit) {
  const FileMap file(path);
  const std::string_view text = file.text();
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) fail(path, ": expected records, found an empty file");
  if (text[begin] == '[') return read_array(path, text, visit);
  read_json_lines(path, [&](int64_t line, const Json& object) {
    visit(SetRecord(object, concat(path, ": line ", line), line));
  });
}

bool is_file(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

std::string read_text_file(const std::string& path) {
  const FileMap file(path);
  std::string text(file.text());
  if (utf8_valid_prefix(text) < text.size()) {
    fail(path, ": expected UTF-8 text, found invalid bytes at byte ", utf8_valid_prefix(text));
  }
  return text;
}

std::map<std::string, std::string> read_string_map(const std::string& path) {
  const Json object = Json::parse_or_null(read_text_file(path));
  if (!object.is_object()) fail(path, ": expected a JSON object of strings");
  std::map<std::string, std::string> map;
  for (const auto& [key, value] : object.fields()) map[key] = text_of(value, concat(path, ": field ", quote(key)));
  return map;
}

PromptForm::PromptForm(std::string_view text, const std::string& where,
                       const std::vector<std::string>& placeholders, const std::string& document) {
  std::string literal;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c == '{' || c == '}') && text.substr(i + 1, 1) == std::string_view(&c, 1)) {
      literal += c;
      ++i;
    } else if (c == '{') {
      const size_t end = text.find('}', i);
      if (end == std::string_view::npos) fail(where, ": the prompt has an unclosed brace");
      const std::string name(text.substr(i + 1, end - i - 1));
      if (std::ranges::find(placeholders, name) == placeholders.end()) {
        fail(where, ": the prompt has an unknown placeholder ", quote(name), ", expected ",
             comma_list(placeholders));
      }
      pieces_.push_back({false, std::exchange(literal, "")});
      pieces_.push_back({true, name});
      if (name == document) question_ = pieces_.size();
      i = end;
    } else {
      literal += c;
    }
  }
  pieces_.push_back({false, literal});
  if (question_ == 0) fail(where, ": the prompt has no placeholder {", document, "}");
}

void PromptForm::fill(const std::map<std::string, std::string>& values, Sample& sample) const {
  for (size_t i = 0; i < pieces_.size(); ++i) {
    std::string& part = i < question_ ? sample.context : sample.question;
    if (!pieces_[i].is_placeholder) {
      part += pieces_[i].text;
    } else if (const auto value = values.find(pieces_[i].text); value != values.end()) {
      part += value->second;
    }
  }
}

void SetTask::add(Sample sample) {
  const auto known = known_.find(sample.context);
  size_t document = documents_.size();
  if (known != known_.end()) {
    document = known->second;
  } else {
    documents_.push_back(std::make_shared<const std::string>(std::move(sample.context)));
    known_.emplace(*documents_.back(), document);
  }
  sample.context.clear();
  samples_.push_back({std::move(sample), document});
}

void SetTask::finish(const std::string& path) {
  if (samples_.empty()) fail(path, ": contains no records of ", name());
  std::ranges::stable_sort(samples_, {}, &Entry::document);
  for (size_t i = 1; i < samples_.size(); ++i) {
    if (samples_[i].document != samples_[i - 1].document) continue;
    samples_[i].sample.group = concat(name(), "#", samples_[i].document);
    samples_[i - 1].sample.group = samples_[i].sample.group;
  }
  known_.clear();
}

Sample SetTask::make(const TaskInput&, int64_t length, int64_t index) const {
  if (index < 0 || index >= available())
    fail(name(), ": has ", available(), " samples, sample ", index, " was requested");
  const Entry& entry = samples_[index];
  if (length <= entry.sample.reserve) fail_too_short(name(), length, entry.sample.reserve + 1);
  Sample sample = entry.sample;
  sample.context = *documents_[entry.document];
  return sample;
}

Score SetTask::score(const Sample& sample, const Answer& answer) const {
  Score score = scorer_(sample, answer);
  const auto kinds = sample.details.find("kinds");
  if (!kinds) return score;
  for (const auto& kind : kinds->items()) score.details["score of " + kind.get<std::string>()] = score.value;
  return score;
}

SetTask::Scorer score_by(const std::string& metric) {
  return [score = find_metric(metric).score](const Sample& sample, const Answer& answer) {
    return Score{score(answer.text, sample), Json::object()};
  };
}

Sample published_sample(int64_t reserve, std::vector<std::string> references, int64_t line) {
  Sample sample;
  sample.cut_middle = true;
  sample.reserve = reserve;
  sample.references = std::move(references);
  sample.details["line"] = line;
  return sample;
}

}  // namespace fathom::eval
