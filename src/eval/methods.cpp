// The tasks of `fathom eval`: one line each.
#include "eval/sets/sets.h"
#include "eval/tasks/tasks.h"

namespace fathom {

const MethodTable<TaskMethod>& task_methods() {
  static const MethodTable<TaskMethod> table("task", {{longbench_info(), make_longbench},
                                                      {longbench_v2_info(), make_longbench_v2},
                                                      {infinitebench_info(), make_infinitebench},
                                                      {loogle_info(), make_loogle},
                                                      {m4le_info(), make_m4le},
                                                      {longproc_info(), make_longproc},
                                                      {hellobench_info(), make_hellobench},
                                                      {ada_leval_info(), make_ada_leval},
                                                      {needle_threading_info(), make_needle_threading},
                                                      {ruler_file_info(), make_ruler_file}});
  return table;
}

}  // namespace fathom
