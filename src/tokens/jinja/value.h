#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace fathom::jinja {

class Value;

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

/// A value of a template, with Python's meaning of truth, equality, order and text. Cheap to copy: text, lists and
/// dicts are shared. Only namespaces change; what is put into another value is a dict of what they hold then, so
/// that no value can hold itself.
class Value {
 public:
  struct Undefined {
    std::string name;  // of what was looked for
  };
  struct List {
    std::vector<Value> items;
    bool is_tuple = false;
    int64_t weight = 1;
    int depth = 1;
  };
  struct Dict {
    std::vector<std::pair<Value, Value>> entries;  // in order of insertion
    bool is_namespace = false;
    int64_t weight = 1;
    int depth = 1;
    const Value* find(const Value& key) const;
    void set(const Value& key, Value value);  // throws Error as make_dict()
  };
  struct Function {
    std::string name;
    std::function<Value(const Arguments&)> call;
  };

  Value() : data_(Undefined{}) {}
  Value(bool value) : data_(value) {}
  Value(int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(std::string text) : data_(std::make_shared<const std::string>(std::move(text))) {}
  Value(std::string_view text) : Value(std::string(text)) {}
  Value(const char* text) : Value(std::string(text)) {}
  static Value none() { return Value(Data(nullptr)); }
  static Value undefined(std::string name) { return Value(Data(Undefined{std::move(name)})); }
  /// Both throw Error if the whole is too deep or too large to be of use.
  static Value make_list(std::vector<Value> items, bool is_tuple = false);
  static Value make_dict(std::vector<std::pair<Value, Value>> entries = {}, bool is_namespace = false);
  static Value make_function(std::string name, std::function<Value(const Arguments&)> call);

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<std::nullptr_t>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_number() const { return is_integer() || is_float() || is_bool(); }

  /// Null if the value is of another kind.
  const std::string* text() const;
  const List* list() const;
  Dict* dict() const;
  const Function* function() const;

  const std::string& undefined_name() const { return std::get<Undefined>(data_).name; }
  int64_t integer() const;  // of an integer or bool
  double number() const;    // of a number

  /// Work to copy, compare or print the value: items in the tree below, and 16 bytes of text count as one.
  int64_t weight() const;
  bool truth() const;
  bool operator==(const Value& other) const;
  /// Throws Error if the two have no order. Numbers with numbers, texts with texts, lists with lists.
  bool less(const Value& other) const;

  const char* kind() const;     // "a string", "a list", … for messages
  std::string to_text() const;  // as {{ … }} prints it
  std::string repr() const;     // as it stands inside a printed list
  /// JSON as Python writes it: `indent` spaces a level, or one line if negative. Throws Error for what JSON lacks.
  std::string to_json(int64_t indent = -1) const;

 private:
  using Data = std::variant<Undefined, std::nullptr_t, bool, int64_t, double, std::shared_ptr<const std::string>,
                            std::shared_ptr<const List>, std::shared_ptr<Dict>, std::shared_ptr<const Function>>;
  explicit Value(Data data) : data_(std::move(data)) {}
  int depth() const;
  template <class Container>
  static void count(Container& container, Value& item);
  Data data_;
};

}  // namespace fathom::jinja
