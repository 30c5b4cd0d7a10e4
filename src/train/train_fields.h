#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "train/train_config.h"

namespace fathom::train {

using FieldTarget = std::variant<int64_t*, double*, bool*, std::string*>;

/// A field of a config: its path, its range and its summary.
struct TrainField {
  std::string path;                                     // "optimizer.beta1"; in a list: "data.sources[].share"
  FieldTarget (*at)(TrainConfig& config, size_t item);  // item: index in the list, if any
  const char* summary;                                  // one line
  double min = 0, max = 0;                              // inclusive range of a number
  std::vector<std::string> choices{};                   // allowed strings; empty: any
  bool may_differ = false;                              // whether a continued run may change it
};
/// Returns all fields, in the order in which to_json writes them.
const std::vector<TrainField>& train_fields();

/// A config field that is a list of objects.
struct TrainList {
  std::string path;  // "data.sources"
  size_t (*size)(const TrainConfig& config);
  void (*resize)(TrainConfig& config, size_t size);
  const char* summary;
};
/// Returns all fields that are lists of objects.
const std::vector<TrainList>& train_lists();

/// A field, object or list directly below a path of the config.
struct FieldChild {
  std::string name, path;
  const TrainField* field = nullptr;  // null: an object or a list
  const TrainList* list = nullptr;    // null: an object or a field
};
/// Returns the children of `path`; "" is the root.
std::vector<FieldChild> field_children(std::string_view path);

}  // namespace fathom::train
