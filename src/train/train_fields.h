#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "train/train_config.h"

namespace fathom::train {

using FieldTarget = std::variant<int64_t*, double*, bool*, std::string*>;

/// One field of a config: where it stands, what it may be, what it is for.
struct TrainField {
  std::string path;                                     // "optimizer.beta1"; "data.sources[].share": of each item
  FieldTarget (*at)(TrainConfig& config, size_t item);  // item: of the list, where there is one
  const char* summary;                                  // one line
  double min = 0, max = 0;                              // of numbers, inclusive
  std::vector<std::string> choices{};                   // of strings; empty: any
  bool may_differ = false;                              // between a run and its continuation
};
/// In the order in which they are written.
const std::vector<TrainField>& train_fields();

/// A field that is a list of objects.
struct TrainList {
  std::string path;  // "data.sources"
  size_t (*size)(const TrainConfig& config);
  void (*resize)(TrainConfig& config, size_t size);
  const char* summary;
};
const std::vector<TrainList>& train_lists();

/// What stands under a path in the table ("" is the top): fields, objects and lists.
struct FieldChild {
  std::string name, path;
  const TrainField* field = nullptr;  // null: an object, or a list
  const TrainList* list = nullptr;
};
std::vector<FieldChild> field_children(std::string_view path);

}  // namespace fathom::train
