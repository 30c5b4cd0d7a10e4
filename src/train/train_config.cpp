#include "train/train_config.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/file_map.h"
#include "base/format.h"
#include "base/spec.h"
#include "train/draft_kinds.h"
#include "train/train_fields.h"

namespace fathom::train {
namespace {

std::string field_path(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

/// Reads a JSON object into a config. The fields are those of train_fields().
class TrainConfigReader {
 public:
  TrainConfigReader(TrainConfig& config, const std::string& name) : config_(config), name_(name) {}

  /// table_path: path of the object in the table of fields; path: the same with the indices of items, for errors.
  void read_object(const Json& json, const std::string& table_path, const std::string& path, size_t item) {
    if (!json.is_object()) fail_type(path.empty() ? "the config" : path, "an object", json);
    const std::vector<FieldChild> children = field_children(table_path);
    for (const auto& [key, value] : json.fields()) {
      const auto child = std::find_if(children.begin(), children.end(),
                                      [&, &k = key](const FieldChild& c) { return c.name == k; });
      if (child == children.end()) fail_unknown(key, path, children);
      const std::string here = field_path(path, key);
      if (child->field) {
        read_value(value, *child->field, here, item);
      } else if (child->list) {
        read_list(value, *child->list, here);
      } else {
        read_object(value, child->path, here, item);
      }
    }
  }

 private:
  [[noreturn]] void fail_type(const std::string& path, const std::string& expected, const Json& found) const {
    fail_usage(name_, ": ", path, " is ", quote(found.dump()), ", expected ", expected);
  }

  [[noreturn]] void fail_unknown(const std::string& key, const std::string& path,
                                 const std::vector<FieldChild>& known) const {
    std::vector<std::string> names;
    for (const FieldChild& child : known) names.push_back(child.name);
    const std::vector<std::string> near = nearest_names(key, names);
    fail_usage(name_, ": ", path.empty() ? "" : path + ": ", "unknown field ", quote(key),
               near.empty() ? "; expected one of " : "; did you mean ", comma_list(near.empty() ? names : near),
               near.empty() ? "" : "?");
  }

  void read_list(const Json& json, const TrainList& list, const std::string& path) {
    if (!json.is_array()) fail_type(path, "a list", json);
    list.resize(config_, json.size());
    for (size_t i = 0; i < json.size(); ++i) {
      read_object(json[i], list.path + "[]", concat(path, "[", i, "]"), i);
    }
  }

  void read_value(const Json& json, const TrainField& field, const std::string& path, size_t item) {
    const FieldTarget target = field.at(config_, item);
    if (const auto* integer = std::get_if<int64_t*>(&target)) {
      const std::string expected =
          concat("an integer from ", static_cast<int64_t>(field.min), " to ", static_cast<int64_t>(field.max));
      if (!json.is_number_integer() || !in_range(json, field)) fail_type(path, expected, json);
      **integer = json.get<int64_t>();
    } else if (const auto* number = std::get_if<double*>(&target)) {
      const std::string expected = concat("a number from ", field.min, " to ", field.max);
      if (!json.is_number() || !in_range(json, field)) fail_type(path, expected, json);
      **number = json.get<double>();
    } else if (const auto* boolean = std::get_if<bool*>(&target)) {
      if (!json.is_boolean()) fail_type(path, "true or false", json);
      **boolean = json.get<bool>();
    } else {
      read_string(json, field, path, *std::get<std::string*>(target));
    }
  }

  void read_string(const Json& json, const TrainField& field, const std::string& path, std::string& target) {
    const std::string expected = field.choices.empty() ? "a string" : "one of: " + comma_list(field.choices);
    if (!json.is_string()) fail_type(path, expected, json);
    const std::string text = json.get<std::string>();
    const auto& choices = field.choices;
    if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) {
      fail_type(path, expected, json);
    }
    target = text;
  }

  static bool in_range(const Json& json, const TrainField& field) {
    const double value = json.get<double>();
    return value >= field.min && value <= field.max;
  }

  TrainConfig& config_;
  const std::string& name_;
};

bool is_power_of_two(int64_t n) { return (n & (n - 1)) == 0; }

/// Checks what every draft source and every compression needs. Throws Error (usage).
void check_base(const TrainConfig& c, const std::string& name) {
  if (!c.has_frozen_base()) return;
  if (c.draft.trained() && c.compress.trained())
    fail_usage(name, ": draft.kind is ", c.draft.kind, " and compress.kind ", c.compress.kind,
               ", expected one of them to be none");
  const std::string kind =
      c.draft.trained() ? "draft.kind is " + c.draft.kind : "compress.kind is " + c.compress.kind;
  if (c.start.empty())
    fail_usage(name, ": ", kind,
               ", but start is empty, expected the GGUF file of the model that it is trained for");
  if (c.model.landmark_block > 0)
    fail_usage(name, ": ", kind, ", but model.landmark_block is ", c.model.landmark_block,
               ", expected 0: models with landmarks cannot be used");
}

/// Checks conditions between fields of a compression. Throws Error (usage).
void check_compress(const TrainConfig& c, const std::string& name) {
  const TrainConfig::Compress& compress = c.compress;
  if (compress.kind == "lococo" && compress.slots % 2 != 0)
    fail_usage(name, ": compress.slots is ", compress.slots, ", expected an even number with compress.kind lococo");
  if (compress.kind == "lococo" && compress.kernel % 2 == 0)
    fail_usage(name, ": compress.kernel is ", compress.kernel, ", expected an odd number");
  if (compress.kind == "compllm" && compress.factor > 0 && compress.segment % compress.factor != 0)
    fail_usage(name, ": compress.segment is ", compress.segment, ", expected a multiple of compress.factor, ",
               compress.factor);
}

/// Checks conditions between fields of a draft source. Throws Error (usage).
void check_draft(const TrainConfig& c, const std::string& name) {
  const TrainConfig::Draft& draft = c.draft;
  if (!draft.trained()) return;
  if (draft.kind == "hidden-transfer" && draft.steps > kMaxTransferSteps) {
    fail_usage(name, ": draft.steps is ", draft.steps, ", expected at most ", kMaxTransferSteps,
               " with draft.kind hidden-transfer");
  }
  if (draft.heads > 0 && draft.kv_heads > 0 && draft.heads % draft.kv_heads != 0) {
    fail_usage(name, ": draft.heads is ", draft.heads, ", expected a multiple of draft.kv_heads, ", draft.kv_heads);
  }
  if (draft.head_dim % 2 != 0) fail_usage(name, ": draft.head_dim is ", draft.head_dim, ", expected even");
}

/// Checks conditions between fields. Throws Error (usage).
void check_together(const TrainConfig& c, const std::string& name) {
  if (c.model.heads % c.model.kv_heads != 0) {
    fail_usage(name, ": model.heads is ", c.model.heads, ", expected a multiple of model.kv_heads, ",
               c.model.kv_heads);
  }
  if (c.model.head_dim % 2 != 0) fail_usage(name, ": model.head_dim is ", c.model.head_dim, ", expected even");
  if (c.model.softplus_power > 0 && c.model.softplus_power < 1) {  // the slope at 0 would be infinite
    fail_usage(name, ": model.softplus_power is ", c.model.softplus_power, ", expected 0, or 1 or more");
  }
  if (c.model.landmark_block > 0 && c.model.attention != "softmax")
    fail_usage(name, ": model.landmark_block needs model.attention softmax");
  if (c.model.landmark_block > 0 && c.model.sliding_window > 0) {
    fail_usage(name, ": model.landmark_block is ", c.model.landmark_block, " and model.sliding_window ",
               c.model.sliding_window, ", expected one of them to be 0");
  }
  check_base(c, name);
  check_draft(c, name);
  check_compress(c, name);
  const TrainConfig::Lengths& lengths = c.data.lengths;
  const std::pair<const char*, int64_t> powers[] = {{"shortest", lengths.shortest}, {"longest", lengths.longest}};
  for (const auto& [field, value] : powers) {
    if (!is_power_of_two(value)) {
      fail_usage(name, ": data.lengths.", field, " is ", value, ", expected a power of two");
    }
  }
  if (lengths.shortest > lengths.longest) {
    fail_usage(name, ": data.lengths.shortest is ", lengths.shortest, ", expected at most data.lengths.longest, ",
               lengths.longest);
  }
  if (c.batch_tokens % lengths.longest != 0) {
    fail_usage(name, ": batch_tokens is ", c.batch_tokens, ", expected a multiple of data.lengths.longest, ",
               lengths.longest);
  }
  if (c.schedule.warmup_steps + c.schedule.decay_steps > c.steps) {
    fail_usage(name, ": schedule.warmup_steps and schedule.decay_steps are ",
               c.schedule.warmup_steps + c.schedule.decay_steps, " together, expected at most steps, ", c.steps);
  }
}

Json object_of(TrainConfig& config, const std::string& table_path, size_t item) {
  Json json = Json::object();
  for (const FieldChild& child : field_children(table_path)) {
    Json& value = json[child.name];
    if (child.field) {
      std::visit([&](const auto* target) { value = *target; }, child.field->at(config, item));
    } else if (child.list) {
      value = Json::array();
      for (size_t i = 0; i < child.list->size(config); ++i)
        value.push_back(object_of(config, child.path + "[]", i));
    } else {
      value = object_of(config, child.path, item);
    }
  }
  return json;
}

/// A value as JSON text, and the path of its field in train_fields(), without indices.
struct Leaf {
  std::string table_path, value;
};

void collect(const Json& json, const std::string& path, const std::string& table_path,
             std::map<std::string, Leaf>& leaves) {
  if (json.is_object()) {
    for (const auto& [key, value] : json.fields()) {
      collect(value, field_path(path, key), field_path(table_path, key), leaves);
    }
  } else if (json.is_array()) {
    for (size_t i = 0; i < json.size(); ++i) {
      collect(json[i], concat(path, "[", i, "]"), table_path + "[]", leaves);
    }
  } else {
    leaves[path] = {table_path, json.dump()};
  }
}

std::map<std::string, Leaf> leaves_of(const Json& json) {
  std::map<std::string, Leaf> leaves;
  collect(json, "", "", leaves);
  return leaves;
}

bool may_differ(const std::string& table_path) {
  const auto& fields = train_fields();
  return std::any_of(fields.begin(), fields.end(),
                     [&](const TrainField& f) { return f.path == table_path && f.may_differ; });
}

}  // namespace

TrainConfig parse_train_config(const Json& json, const std::string& name) {
  TrainConfig config;
  TrainConfigReader(config, name).read_object(json, "", "", 0);
  check_together(config, name);
  return config;
}

Json read_json(const std::string& path) {
  const FileMap file(path);
  try {
    return Json::parse(file.text());
  } catch (const JsonError& error) {
    fail_usage(path, ": invalid JSON: ", error.what());
  }
}

TrainConfig read_train_config(const std::string& path) { return parse_train_config(read_json(path), path); }

Json to_json(const TrainConfig& config) {
  TrainConfig copy = config;
  return object_of(copy, "", 0);
}

std::vector<std::string> differing_fields(const Json& saved, const Json& now) {
  auto before = leaves_of(saved);
  before.merge(leaves_of(to_json(TrainConfig{})));  // fields added since then had their defaults
  const auto after = leaves_of(now);
  std::set<std::string> paths;
  for (const auto* leaves : {&std::as_const(before), &after}) {
    for (const auto& [path, leaf] : *leaves) {
      if (!may_differ(leaf.table_path)) paths.insert(path);
    }
  }
  const auto value = [](const std::map<std::string, Leaf>& leaves, const std::string& path) {
    const auto found = leaves.find(path);
    return found == leaves.end() ? std::string("missing") : found->second.value;
  };
  std::vector<std::string> differing;
  for (const std::string& path : paths) {
    const std::string old_value = value(before, path), new_value = value(after, path);
    if (old_value != new_value) differing.push_back(path + ": " + old_value + ", now " + new_value);
  }
  return differing;
}

}  // namespace fathom::train
