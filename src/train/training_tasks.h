#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "train/task_source.h"

namespace fathom {

using TaskSources = std::vector<std::shared_ptr<const TaskSource>>;

/// All tasks of training: "facts" hidden in prose and asked for, several questions a text; "multi_key" (nothing but
/// facts), "multi_value" (all values of a key), "multi_query" (several keys in one question), "chains" of names for
/// one number, "lists" and "copy" (said twice). Their words, numbers and wordings are not those of evaluation
/// (src/eval/tasks), whose numbers have 5 to 7 digits: theirs have 3, 4 or 8.
TaskSources training_tasks();

/// The sentences of all tasks, with {k}, {t} and {v} for what differs.
std::vector<std::string_view> training_templates();

}  // namespace fathom
