#include "tokens/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/utf8.h"

namespace fathom::jinja {
namespace {

constexpr int kMaxDepth = 100;           // maximum nesting of lists and dicts
constexpr int64_t kMaxWeight = 1 << 30;  // corresponds to 16 GiB of text

/// Formats a float like Python: the fewest digits that parse to the same value, with a point or an exponent.
std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char text[40];
  const double size = std::abs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  const auto end = std::to_chars(text, text + sizeof text, value, format).ptr;
  std::string out(text, end);
  if (plain && out.find('.') == std::string::npos) out += ".0";
  return out;
}

std::string escaped(std::string_view text, char quote, bool json) {
  std::string out(1, quote);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == quote || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (json && c == '\b') {
      out += "\\b";
    } else if (json && c == '\f') {
      out += "\\f";
    } else if (byte < 0x20 || (byte == 0x7f && !json)) {
      char code[8];
      std::snprintf(code, sizeof code, json ? "\\u%04x" : "\\x%02x", byte);
      out += code;
    } else {
      out += c;
    }
  }
  return out + quote;
}

class JsonWriter {
 public:
  explicit JsonWriter(int64_t indent) : indent_(indent) {}

  void write(const Value& value, int64_t level) {
    if (const std::string* text = value.text()) {
      out += escaped(*text, '"', true);
    } else if (const Value::List* list = value.list()) {
      write_items('[', ']', list->items, level, [&](const Value& item) { write(item, level + 1); });
    } else if (const Value::Dict* dict = value.dict()) {
      write_items('{', '}', dict->entries, level, [&](const auto& entry) {
        out += escaped(entry.first.to_text(), '"', true) + ": ";
        write(entry.second, level + 1);
      });
    } else if (value.is_bool()) {
      out += value.truth() ? "true" : "false";
    } else if (value.is_none()) {
      out += "null";
    } else if (value.is_number()) {
      out += value.to_text();
    } else {
      fail("tojson: ", value.kind(), " cannot be represented in JSON");
    }
  }

  std::string out;

 private:
  template <class Items, class Write>
  void write_items(char open, char close, const Items& items, int64_t level, const Write& write_item) {
    out += open;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out += indent_ < 0 ? ", " : ",";
      new_line(level + 1);
      write_item(items[i]);
    }
    if (!items.empty()) new_line(level);
    out += close;
  }
  void new_line(int64_t level) {
    if (indent_ >= 0) out.append("\n").append(indent_ * level, ' ');
  }
  int64_t indent_;
};

}  // namespace

template <class Container>
void Value::count(Container& container, Value& item) {
  if (item.dict() && item.dict()->is_namespace) item = make_dict(item.dict()->entries);
  container.weight += item.weight();
  container.depth = std::max(container.depth, item.depth() + 1);
  if (container.depth > kMaxDepth) fail("lists and dicts are nested more than ", kMaxDepth, " levels deep");
  if (container.weight > kMaxWeight) fail("a list or dict is too large");
}

const Value* Value::Dict::find(const Value& key) const {
  for (const auto& [name, value] : entries) {
    if (name == key) return &value;
  }
  return nullptr;
}

void Value::Dict::set(const Value& key, Value value) {
  for (auto& [old_key, old] : entries) {
    if (old_key == key) {
      weight -= old.weight();
      count(*this, value);
      old = std::move(value);
      return;
    }
  }
  Value name = key;
  count(*this, name);
  count(*this, value);
  entries.emplace_back(std::move(name), std::move(value));
}

int Value::depth() const {
  if (list()) return list()->depth;
  return dict() ? dict()->depth : 0;
}

int64_t Value::weight() const {
  if (text()) return 1 + static_cast<int64_t>(text()->size() / 16);
  if (list()) return list()->weight;
  return dict() ? dict()->weight : 1;
}

Value Value::make_list(std::vector<Value> items, bool is_tuple) {
  List list{std::move(items), is_tuple};
  for (Value& item : list.items) count(list, item);
  return Value(Data(std::make_shared<const List>(std::move(list))));
}

Value Value::make_dict(std::vector<std::pair<Value, Value>> entries, bool is_namespace) {
  Dict dict{{}, is_namespace};
  for (auto& [key, value] : entries) dict.set(key, std::move(value));
  return Value(Data(std::make_shared<Dict>(std::move(dict))));
}

Value Value::make_function(std::string name, std::function<Value(const Arguments&)> call) {
  return Value(Data(std::make_shared<const Function>(Function{std::move(name), std::move(call)})));
}

const std::string* Value::text() const {
  const auto* pointer = std::get_if<std::shared_ptr<const std::string>>(&data_);
  return pointer ? pointer->get() : nullptr;
}
const Value::List* Value::list() const {
  const auto* pointer = std::get_if<std::shared_ptr<const List>>(&data_);
  return pointer ? pointer->get() : nullptr;
}
Value::Dict* Value::dict() const {
  const auto* pointer = std::get_if<std::shared_ptr<Dict>>(&data_);
  return pointer ? pointer->get() : nullptr;
}
const Value::Function* Value::function() const {
  const auto* pointer = std::get_if<std::shared_ptr<const Function>>(&data_);
  return pointer ? pointer->get() : nullptr;
}

int64_t Value::integer() const {
  if (const bool* value = std::get_if<bool>(&data_)) return *value;
  if (!is_integer()) fail("expected an integer, found ", kind());
  return std::get<int64_t>(data_);
}

double Value::number() const {
  if (is_float()) return std::get<double>(data_);
  return static_cast<double>(integer());
}

bool Value::truth() const {
  if (is_number()) return number() != 0;
  if (text()) return !text()->empty();
  if (list()) return !list()->items.empty();
  if (dict()) return dict()->is_namespace || !dict()->entries.empty();
  return function() != nullptr;
}

bool Value::operator==(const Value& other) const {
  if (is_number() && other.is_number()) {
    return is_float() || other.is_float() ? number() == other.number() : integer() == other.integer();
  }
  if (data_.index() != other.data_.index()) return false;
  if (text()) return *text() == *other.text();
  if (list()) return list()->is_tuple == other.list()->is_tuple && list()->items == other.list()->items;
  if (dict()) {
    const Dict &a = *dict(), &b = *other.dict();
    return a.entries.size() == b.entries.size() && std::ranges::all_of(a.entries, [&](const auto& entry) {
             const Value* value = b.find(entry.first);
             return value && *value == entry.second;
           });
  }
  return function() == other.function();
}

bool Value::less(const Value& other) const {
  if (is_number() && other.is_number()) {
    return is_float() || other.is_float() ? number() < other.number() : integer() < other.integer();
  }
  if (text() && other.text()) return *text() < *other.text();
  if (list() && other.list()) {
    const auto less_item = [](const Value& a, const Value& b) { return a.less(b); };
    return std::ranges::lexicographical_compare(list()->items, other.list()->items, less_item);
  }
  fail(kind(), " and ", other.kind(), " cannot be ordered");
}

const char* Value::kind() const {
  if (is_undefined()) return "an undefined value";
  if (is_none()) return "none";
  if (is_bool()) return "a boolean";
  if (is_integer()) return "an integer";
  if (is_float()) return "a float";
  if (text()) return "a string";
  if (list()) return list()->is_tuple ? "a tuple" : "a list";
  if (dict()) return dict()->is_namespace ? "a namespace" : "a dict";
  return "a function";
}

std::string Value::to_text() const {
  if (text()) return *text();
  return is_undefined() ? std::string() : repr();
}

std::string Value::repr() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "None";
  if (is_bool()) return truth() ? "True" : "False";
  if (is_integer()) return std::to_string(integer());
  if (is_float()) return float_text(number());
  if (text()) {
    const bool single = text()->find('\'') == std::string::npos || text()->find('"') != std::string::npos;
    return escaped(*text(), single ? '\'' : '"', false);
  }
  std::string out;
  if (list()) {
    for (const Value& item : list()->items) out += (out.empty() ? "" : ", ") + item.repr();
    if (list()->is_tuple) return "(" + out + (list()->items.size() == 1 ? ",)" : ")");
    return "[" + out + "]";
  }
  if (dict()) {
    for (const auto& [key, value] : dict()->entries)
      out += (out.empty() ? "" : ", ") + key.repr() + ": " + value.repr();
    return (dict()->is_namespace ? "<Namespace {" : "{") + out + (dict()->is_namespace ? "}>" : "}");
  }
  return "<function " + function()->name + ">";
}

std::string Value::to_json(int64_t indent) const {
  JsonWriter writer(indent);
  writer.write(*this, 0);
  return writer.out;
}

}  // namespace fathom::jinja
