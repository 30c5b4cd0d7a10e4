// The tasks of `fathom eval`: one line each.
#include "eval/sets/sets.h"
#include "eval/tasks/tasks.h"

namespace fathom {

const MethodTable<TaskMethod>& task_methods() {
  static const MethodTable<TaskMethod> table("task", {});
  return table;
}

}  // namespace fathom
