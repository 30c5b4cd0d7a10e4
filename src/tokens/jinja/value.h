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

/// The arguments of a call.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

/// A value of a template, with Python's rules for truth, equality, order and printing. Cheap to copy: strings,
/// lists and dicts are shared. Only namespaces are mutable. A namespace that is stored in another value is copied
/// to a dict, so that no value can contain itself.
class Value {
 public:
  struct Undefined {
    std::string name;  // the name that was looked up
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
  /// Both throw Error for nesting beyond 100 levels or a weight() beyond 2^30.
  static Value make_list(std::vector<Value> items, bool is_tuple = false);
  static Value make_dict(std::vector<std::pair<Value, Value>> entries = {}, bool is_namespace = false);
  static Value make_function(std::string name, std::function<Value(const Arguments&)> call);

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<std::nullptr_t>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_number() const { return is_integer() || is_float() || is_bool(); }

  /// Return null if the value is of another kind.
  const std::string* text() const;
  const List* list() const;
  Dict* dict() const;
  const Function* function() const;

  const std::string& undefined_name() const { return std::get<Undefined>(data_).name; }
  int64_t integer() const;  // of an integer or bool
  double number() const;    // of a number

  /// Returns the cost of copying, comparing or printing the value: the number of nested items, plus one per 16
  /// bytes of text.
  int64_t weight() const;
  bool truth() const;
  bool operator==(const Value& other) const;
  /// Orders numbers with numbers, strings with strings and lists with lists. Throws Error for other pairs.
  bool less(const Value& other) const;

  const char* kind() const;     // "a string", "a list", … for error messages
  std::string to_text() const;  // as {{ … }} prints it
  std::string repr() const;     // as inside a printed list
  /// Returns JSON in the form of Python's json.dumps: `indent` spaces per level, or one line if negative. Throws
  /// Error for values that JSON cannot represent.
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
