#include "base/json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

namespace fathom {
namespace {

using NlohmannJson = nlohmann::json;

/// Removes repeated field names: the value of the last field with a name replaces that of the first one.
void keep_last_of_same_name(Json::Object& fields) {
  if (fields.size() < 2) return;
  std::unordered_map<std::string_view, size_t> first;
  std::vector<size_t> repeated;
  for (size_t i = 0; i < fields.size(); ++i) {
    const auto [known, added] = first.try_emplace(fields[i].first, i);
    if (added) continue;
    std::swap(fields[known->second].second, fields[i].second);
    repeated.push_back(i);
  }
  if (repeated.empty()) return;
  Json::Object kept;
  for (size_t i = 0; i < fields.size(); ++i)
    if (!std::ranges::binary_search(repeated, i)) kept.push_back(std::move(fields[i]));
  fields = std::move(kept);
}

/// Builds a value from the parser's events. If `visit` is set, calls it with each item of the outermost array
/// instead of keeping the items.
class JsonBuilder final : public NlohmannJson::json_sax_t {
 public:
  explicit JsonBuilder(const std::function<void(const Json&)>* visit = nullptr) : visit_(visit) {}

  Json take() { return std::move(result_); }
  const std::string& error() const { return error_; }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // does not occur in text
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool key(string_t& key) override {
    open_.back().key = std::move(key);
    return true;
  }
  bool end_object() override {
    keep_last_of_same_name(open_.back().fields);
    return close(Json(std::move(open_.back().fields)));
  }
  bool end_array() override { return close(Json(std::move(open_.back().items))); }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    error_ = error.what();
    return false;
  }

 private:
  struct OpenContainer {
    bool is_object;
    Json::Array items;
    Json::Object fields;
    std::string key;
  };

  bool open(const Json& kind) {
    if (open_.size() == Json::kMaxDepth) {
      error_ = concat("nested deeper than ", Json::kMaxDepth, " levels");
      return false;
    }
    open_.push_back({kind.is_object(), {}, {}, {}});
    return true;
  }
  bool close(Json value) {
    open_.pop_back();
    return add(std::move(value));
  }
  bool add(Json value) {
    if (open_.empty()) {
      result_ = std::move(value);
    } else if (open_.back().is_object) {
      open_.back().fields.emplace_back(std::move(open_.back().key), std::move(value));
    } else if (visit_ && open_.size() == 1) {
      (*visit_)(value);
    } else {
      open_.back().items.push_back(std::move(value));
    }
    return true;
  }

  const std::function<void(const Json&)>* visit_;
  std::vector<OpenContainer> open_;
  Json result_;
  std::string error_;
};

/// Parses `text` into `builder`. Returns false if the text is malformed; builder.error() then has the reason.
bool parse_into(std::string_view text, JsonBuilder& builder) {
  return NlohmannJson::sax_parse(text.data(), text.data() + text.size(), &builder);
}

std::string print_scalar(const NlohmannJson& value) {
  return value.dump(-1, ' ', false, NlohmannJson::error_handler_t::replace);
}

class JsonPrinter {
 public:
  JsonPrinter(int indent, std::string& out) : indent_(indent), out_(out) {}

  void print(const Json& value, int level) {
    if (value.is_object()) {
      list('{', '}', value.fields(), level, [&](const auto& field) {
        out_ += print_scalar(field.first);
        out_ += indent_ < 0 ? ":" : ": ";
        print(field.second, level + 1);
      });
    } else if (value.is_array()) {
      list('[', ']', value.items(), level, [&](const Json& item) { print(item, level + 1); });
    } else if (value.is_string()) {
      out_ += print_scalar(value.text());
    } else if (value.is_boolean()) {
      out_ += value.get<bool>() ? "true" : "false";
    } else if (value.is_number_unsigned()) {
      out_ += std::to_string(value.get<uint64_t>());
    } else if (value.is_number_integer()) {
      out_ += std::to_string(value.get<int64_t>());
    } else {
      out_ += value.is_null() ? "null" : print_scalar(value.get<double>());
    }
  }

 private:
  template <class List, class Print>
  void list(char open, char close, const List& items, int level, const Print& print_item) {
    out_ += open;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += ',';
      new_line(level + 1);
      print_item(items[i]);
    }
    if (!items.empty()) new_line(level);
    out_ += close;
  }
  void new_line(int level) {
    if (indent_ >= 0) out_.append(1, '\n').append(static_cast<size_t>(level) * indent_, ' ');
  }

  int indent_;
  std::string& out_;
};

std::string_view type_name(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_boolean()) return "a boolean";
  if (value.is_number()) return "a number";
  if (value.is_string()) return "a string";
  return value.is_array() ? "an array" : "an object";
}

}  // namespace

Json::Json(std::initializer_list<Json> items) {
  const auto is_field = [](const Json& item) {
    return item.is_array() && item.size() == 2 && item.items()[0].is_string();
  };
  if (!std::ranges::all_of(items, is_field)) {
    value_ = Array(items);
    return;
  }
  Object fields;
  for (const Json& item : items) fields.emplace_back(item.items()[0].text(), item.items()[1]);
  keep_last_of_same_name(fields);
  value_ = std::move(fields);
}

Json Json::parse(std::string_view text) {
  JsonBuilder builder;
  if (!parse_into(text, builder)) throw JsonError(builder.error());
  return builder.take();
}

Json Json::parse_or_null(std::string_view text) {
  JsonBuilder builder;
  return parse_into(text, builder) ? builder.take() : Json();
}

void Json::parse_items(std::string_view text, const std::function<void(const Json&)>& visit) {
  JsonBuilder builder(&visit);
  if (!parse_into(text, builder)) throw JsonError(builder.error());
  if (const Json whole = builder.take(); !whole.is_array()) whole.fail_type("an array");
}

std::string Json::dump(int indent) const {
  std::string out;
  JsonPrinter(indent, out).print(*this, 0);
  return out;
}

void Json::fail_type(std::string_view expected) const {
  throw JsonError(concat("expected ", expected, ", found ", type_name(*this)));
}

size_t Json::size() const {
  if (const auto* items = std::get_if<Array>(&value_)) return items->size();
  if (const auto* fields = std::get_if<Object>(&value_)) return fields->size();
  return is_null() ? 0 : 1;
}

const std::string& Json::text() const {
  if (!is_string()) fail_type("a string");
  return std::get<std::string>(value_);
}

const Json::Array& Json::items() const& {
  if (!is_array()) fail_type("an array");
  return std::get<Array>(value_);
}

const Json::Object& Json::fields() const& {
  if (!is_object()) fail_type("an object");
  return std::get<Object>(value_);
}

int64_t Json::integer() const {
  if (const auto* value = std::get_if<int64_t>(&value_)) return *value;
  if (const auto* value = std::get_if<uint64_t>(&value_)) return static_cast<int64_t>(*value);
  if (const auto* value = std::get_if<double>(&value_)) {
    constexpr double kLimit = 9223372036854775808.0;
    if (*value >= -kLimit && *value < kLimit) return static_cast<int64_t>(*value);
  }
  fail_type("an integer");
}

double Json::number() const {
  if (const auto* value = std::get_if<double>(&value_)) return *value;
  if (const auto* value = std::get_if<int64_t>(&value_)) return static_cast<double>(*value);
  if (const auto* value = std::get_if<uint64_t>(&value_)) return static_cast<double>(*value);
  fail_type("a number");
}

const Json* Json::find(std::string_view key) const {
  const auto* fields = std::get_if<Object>(&value_);
  if (!fields) return nullptr;
  const auto found = std::ranges::find(*fields, key, &Object::value_type::first);
  return found == fields->end() ? nullptr : &found->second;
}

const Json& Json::at(std::string_view key) const {
  if (!is_object()) fail_type("an object");
  if (const Json* found = find(key)) return *found;
  throw JsonError(concat("field \"", key, "\" is missing"));
}

const Json& Json::at(size_t index) const {
  if (index < items().size()) return items()[index];
  throw JsonError(concat("item ", index, " is missing: the array has ", size(), " items"));
}

Json& Json::operator[](std::string_view key) {
  if (is_null()) value_ = Object();
  if (!is_object()) fail_type("an object");
  if (Json* found = find(key)) return *found;
  return std::get<Object>(value_).emplace_back(key, Json()).second;
}

void Json::push_back(Json item) {
  if (is_null()) value_ = Array();
  if (!is_array()) fail_type("an array");
  std::get<Array>(value_).push_back(std::move(item));
}

void Json::erase(std::string_view key) {
  if (auto* fields = std::get_if<Object>(&value_))
    std::erase_if(*fields, [&](const auto& field) { return field.first == key; });
}

void Json::update(const Json& other) {
  for (const auto& [key, value] : other.fields()) (*this)[key] = value;
}

bool Json::operator==(const Json& other) const {
  if (is_number_integer() && other.is_number_integer() && value_.index() != other.value_.index()) {
    const int64_t a = integer(), b = other.integer();  // one is signed, one unsigned: equal only if both are ≥ 0
    return a == b && a >= 0;
  }
  if (is_number() && other.is_number() && value_.index() != other.value_.index()) return number() == other.number();
  return value_ == other.value_;
}

}  // namespace fathom
