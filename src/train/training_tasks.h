#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "train/task_source.h"

namespace fathom::train {

using TaskSources = std::vector<std::shared_ptr<const TaskSource>>;

/// All tasks of training. "facts" hidden in prose or dull sentences and asked for; "multi_key" (nothing but facts),
/// "multi_value" (all values of a key), "multi_query" (several keys in one question); "chains" of names for one
/// number; "lists" and "copy" (said again); "ledger" (pairs, and each key again with its value); "continue"
/// (passages that begin once more). Their words, numbers and wordings are not those of evaluation (src/eval/tasks),
/// whose numbers have 5 to 7 digits: theirs have 1 to 4, 8 or 9.
TaskSources training_tasks();

/// The pieces of all wordings, with {k}, {t}, {v} and others for what differs.
std::vector<std::string_view> training_templates();

}  // namespace fathom::train
