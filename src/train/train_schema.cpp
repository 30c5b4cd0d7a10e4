#include "train/train_config.h"
#include "train/train_fields.h"

namespace fathom::train {
namespace {

Json object_schema(TrainConfig& defaults, const std::string& table_path);

Json field_schema(TrainConfig& defaults, const TrainField& field) {
  const FieldTarget target = field.at(defaults, 0);
  const char* types[] = {"integer", "number", "boolean", "string"};
  Json schema{{"type", types[target.index()]}, {"description", field.summary}};
  std::visit([&](const auto* value) { schema["default"] = *value; }, target);
  if (std::holds_alternative<int64_t*>(target)) {
    schema["minimum"] = static_cast<int64_t>(field.min);
    schema["maximum"] = static_cast<int64_t>(field.max);
  } else if (std::holds_alternative<double*>(target)) {
    schema["minimum"] = field.min;
    schema["maximum"] = field.max;
  }
  if (!field.choices.empty()) schema["enum"] = field.choices;
  return schema;
}

Json child_schema(TrainConfig& defaults, const FieldChild& child) {
  if (child.field) return field_schema(defaults, *child.field);
  if (!child.list) return object_schema(defaults, child.path);
  child.list->resize(defaults, 1);
  return {{"type", "array"},
          {"description", child.list->summary},
          {"items", object_schema(defaults, child.path + "[]")}};
}

Json object_schema(TrainConfig& defaults, const std::string& table_path) {
  Json properties = Json::object();
  for (const FieldChild& child : field_children(table_path)) properties[child.name] = child_schema(defaults, child);
  return {{"type", "object"}, {"additionalProperties", false}, {"properties", properties}};
}

}  // namespace

Json train_config_schema() {
  Json schema{{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", "A Fathom training run"}};
  TrainConfig defaults;
  schema.update(object_schema(defaults, ""));
  return schema;
}

}  // namespace fathom::train
