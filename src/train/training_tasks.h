#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "train/task_source.h"

namespace fathom::train {

using TaskSources = std::vector<std::shared_ptr<const TaskSource>>;

/// Returns all tasks of training: "facts" hidden in prose or filler sentences; "multi_key" (facts only),
/// "multi_value" (questions for all values of a key), "multi_query" (questions for several keys); "chains" of names
/// set to a number; "lists" and "copy" (repetitions); "ledger" (pairs, then keys with their values); "continue"
/// (passages that are started again). They share no words, numbers or wordings with the evaluation tasks in
/// src/eval/tasks: those have numbers of 5 to 7 digits, these of 1 to 4, 8 or 9 digits.
TaskSources training_tasks();

/// Returns the templates of all wordings, with placeholders such as {k}, {t} and {v}.
std::vector<std::string_view> training_templates();

}  // namespace fathom::train
