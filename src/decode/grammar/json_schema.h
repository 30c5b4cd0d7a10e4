#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "decode/grammar/json_text.h"

namespace fathom {

/// Translates a JSON schema (draft 2020-12 and its predecessors) into expressions of a grammar, all of whose texts
/// the schema accepts. Texts that are left out: properties that the schema does not name, unless
/// additionalProperties is given; properties in another order than the schema's; values of types that only a schema
/// without `type` would accept beside its keywords. Keywords that cannot be followed exactly are errors, never
/// ignored; annotations, among them unknown formats, are ignored.
class JsonSchema {
 public:
  using Expression = GrammarBuilder::Expression;
  /// source: the name of the schema, for messages. The schema must outlive this.
  JsonSchema(JsonText& json, const Json& schema, std::string source)
      : json_(json), builder_(json.builder()), schema_(schema), source_(std::move(source)) {}

  /// Returns the texts of the whole schema. Throws Error that names the place in the schema.
  Expression translate();

 private:
  [[noreturn]] void fail_at(const std::string& place, const std::string& message) const;
  Expression translate(const Json& schema, const std::string& place);
  Expression reference(const std::string& target, const std::string& place);
  const Json& resolve(const std::string& target, const std::string& place) const;
  Json merged(const Json& a, const Json& b, const std::string& place) const;
  Json without_references(const Json& schema, const std::string& place) const;
  Expression alternatives(const Json& schema, const char* keyword, const std::string& place);
  void check_disjoint(const Json& list, const std::string& place) const;
  bool disjoint(const Json& a, const Json& b, const std::string& place) const;
  Expression of_type(const std::string& type, const Json& schema, const std::string& place);
  Expression values_of(const Json& values, const Json& schema, const std::string& place);
  Expression string(const Json& schema, const std::string& place);
  Expression number(const Json& schema, bool whole, const std::string& place);
  Expression object(const Json& schema, const std::string& place);
  Expression array(const Json& schema, const std::string& place);
  int64_t count(const Json& schema, const char* keyword, int64_t fallback, const std::string& place) const;

  JsonText& json_;
  GrammarBuilder& builder_;
  const Json& schema_;
  std::string source_;
  std::map<std::string, int32_t> references_;                // rules by target
  std::vector<std::pair<std::string, int32_t>> unfinished_;  // that have no body yet
};

/// Returns the grammar of JSON objects, or of any JSON.
Grammar json_grammar(bool object, const JsonLayout& layout = {});
/// Returns the grammar of the JSON texts of a schema. Throws Error as JsonSchema.
Grammar json_schema_grammar(const Json& schema, const std::string& source, const JsonLayout& layout = {});

}  // namespace fathom
