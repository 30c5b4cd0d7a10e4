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

/// What a method reads, and what it can be combined with. For a method that has other methods as parameters
/// (`layers:then=...`) the flags describe the method alone; MethodTable::capabilities combines them with those of
/// the parameters.
struct Capabilities {
  bool needs_host_pages = false;      // reads keys or values, so pages must be in host memory
  bool reads_surprisal = false;       // needs the logits of all tokens
  bool works_with_compacted = false;  // with evictors that move tokens within their page tables
  bool works_with_landmarks = false;  // with models trained with landmarks
  bool works_on_recurrent = false;    // with models that have recurrent layers, which have no pages
  bool works_with_drafts = false;     // a draft gives the same results as reading its tokens one by one

  /// Returns the capabilities of two methods used together.
  Capabilities operator&(const Capabilities& other) const {
    return {needs_host_pages || other.needs_host_pages,         reads_surprisal || other.reads_surprisal,
            works_with_compacted && other.works_with_compacted, works_with_landmarks && other.works_with_landmarks,
            works_on_recurrent && other.works_on_recurrent,     works_with_drafts && other.works_with_drafts};
  }
};

/// Description of a method, as printed by `fathom methods`.
struct MethodInfo {
  std::string kind{};  // "attend", "position", "cache", "sample", …: the option it belongs to
  std::string name;
  std::string summary{};  // one line: what it does
  std::string paper{};    // title, year; empty if no paper introduced it
  bool exact = false;     // same result as the default method of the kind
  std::string needs{};    // "any model", "rotary model", "trained weights"
  std::string time{};     // cost as a formula
  std::string memory{};   // cost as a formula
  std::vector<Parameter> parameters{};
  Capabilities capabilities{};  // of attend, evict and read methods
};

/// Throws Error (usage) saying that `name` is unknown. The text lists the nearest names and all known ones.
[[noreturn]] void fail_unknown_method(std::string_view kind, std::string_view name,
                                      const std::vector<std::string>& known);

/// Prints a note on stderr for each parameter that was given by an old name or value, each note once. Thread-safe.
class AliasWarnings {
 public:
  void print(std::string_view kind, std::string_view method, const Values& values);

 private:
  std::mutex mutex_;
  std::set<std::string> printed_;
};

/// The methods of one kind. Make is the signature of their factories, such as `std::unique_ptr<Selector>(const
/// Values&, const Context&)`. A folder defines its table in one file (`methods.cpp`), with one line per method.
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

  /// Returns the method that `spec` names. Throws Error (usage) with the nearest names if it is unknown.
  const Entry& find(const Spec& spec) const {
    std::vector<std::string> known;
    for (const Entry& entry : entries_) {
      if (entry.info.name == spec.name) return entry;
      known.push_back(entry.info.name);
    }
    fail_unknown_method(kind_, spec.name, known);
  }

  /// Returns the capabilities of the method that `text` names, combined with those of the methods of this table
  /// that its parameters name. Throws Error (usage).
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

  /// Returns the names of the methods that have a capability.
  std::vector<std::string> names_with(bool Capabilities::*capability) const {
    std::vector<std::string> names;
    for (const Entry& entry : entries_)
      if (entry.info.capabilities.*capability) names.push_back(entry.info.name);
    return names;
  }

  /// Parses `text`, checks its parameters and makes the method. Prints a note on stderr for parameters given by an
  /// old name or value. Throws Error (usage).
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
