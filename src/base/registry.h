#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/spec.h"

namespace fathom {

/// What a method reads, and what it can be combined with. A flag of a method that has others as parameters
/// (`layers:then=...`) is about the method itself: MethodTable::capabilities joins them.
struct Capabilities {
  bool needs_host_pages = false;      // reads keys or values, so pages must be in the host's memory
  bool reads_surprisal = false;       // needs the logits of all tokens
  bool works_with_compacted = false;  // when an evictor moves tokens within their page tables
  bool works_with_landmarks = false;  // with models that were trained with landmarks
  bool works_on_recurrent = false;    // with models some of whose layers are recurrent and have no pages

  /// Of two methods that are used together.
  Capabilities operator&(const Capabilities& other) const {
    return {needs_host_pages || other.needs_host_pages, reads_surprisal || other.reads_surprisal,
            works_with_compacted && other.works_with_compacted, works_with_landmarks && other.works_with_landmarks,
            works_on_recurrent && other.works_on_recurrent};
  }
};

/// What `fathom methods` says of a method.
struct MethodInfo {
  std::string kind{};  // "attend", "position", "cache", "sample", …: the option it belongs to
  std::string name;
  std::string summary{};  // one line: what it does
  std::string paper{};    // title, year; empty for common knowledge
  bool exact = false;     // same result as the plain method
  std::string needs{};    // "any model", "rotary model", "trained weights"
  std::string time{};     // cost as a formula
  std::string memory{};   // cost as a formula
  std::vector<Parameter> parameters{};
  Capabilities capabilities{};  // of attend, evict and read methods
};

/// Throws Error (usage): unknown `name` of this kind, with the nearest names and all known ones.
[[noreturn]] void fail_unknown_method(std::string_view kind, std::string_view name,
                                      const std::vector<std::string>& known);

/// Tells users, once for each, on stderr, which parameters they gave by an old name. Thread-safe.
class AliasWarnings {
 public:
  void print(std::string_view kind, std::string_view method, const Values& values);

 private:
  std::mutex mutex_;
  std::set<std::string> printed_;
};

/// The methods of one kind; Make is the signature of their factories: `std::unique_ptr<Selector>(const Values&,
/// const Context&)`. A folder defines its table in one file (`methods.cpp`), one line a method.
template <class Make>
class MethodTable {
 public:
  struct Entry {
    MethodInfo info;
    std::function<Make> make;
  };
  MethodTable(std::string kind, std::vector<Entry> entries) : kind_(std::move(kind)), entries_(std::move(entries)) {
    for (Entry& entry : entries_) entry.info.kind = kind_;
  }

  const std::vector<Entry>& entries() const { return entries_; }

  std::vector<MethodInfo> infos() const {
    std::vector<MethodInfo> all;
    for (const Entry& entry : entries_) all.push_back(entry.info);
    return all;
  }

  /// The method `spec` names. Throws Error (usage) with the nearest names.
  const Entry& find(const Spec& spec) const {
    std::vector<std::string> known;
    for (const Entry& entry : entries_) {
      if (entry.info.name == spec.name) return entry;
      known.push_back(entry.info.name);
    }
    fail_unknown_method(kind_, spec.name, known);
  }

  /// Of the method that `text` names, joined with those of the methods of this table that its parameters name.
  /// Throws Error (usage).
  Capabilities capabilities(std::string_view text) const {
    const Spec spec = parse_spec(text);
    const MethodInfo& info = find(spec).info;
    const Values values = check_values(spec, info.parameters);
    Capabilities all = info.capabilities;
    for (const Parameter& parameter : info.parameters) {
      if (parameter.type == Parameter::Type::kSpec && values.has(parameter.name))
        all = all & capabilities(values.string(parameter.name));
    }
    return all;
  }

  /// The names of the methods that have a capability.
  std::vector<std::string> names_with(bool Capabilities::*capability) const {
    std::vector<std::string> names;
    for (const Entry& entry : entries_)
      if (entry.info.capabilities.*capability) names.push_back(entry.info.name);
    return names;
  }

  /// Parses `text`, checks its parameters, and makes the method. Parameters given by an old name are noted on
  /// stderr.
  template <class... Args>
  auto make(std::string_view text, Args&&... args) const {
    const Spec spec = parse_spec(text);
    const Entry& entry = find(spec);
    const Values values = check_values(spec, entry.info.parameters);
    alias_warnings_.print(kind_, entry.info.name, values);
    return entry.make(values, std::forward<Args>(args)...);
  }

 private:
  std::string kind_;
  std::vector<Entry> entries_;
  mutable AliasWarnings alias_warnings_;
};

}  // namespace fathom
