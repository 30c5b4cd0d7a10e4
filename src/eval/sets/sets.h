#pragma once

#include "eval/task.h"

namespace fathom::eval {

// Published sets, read from local files; one set per file of this folder.
MethodInfo longbench_info();
TaskList make_longbench(const Values& values);
MethodInfo longbench_v2_info();
TaskList make_longbench_v2(const Values& values);
MethodInfo infinitebench_info();
TaskList make_infinitebench(const Values& values);
MethodInfo loogle_info();
TaskList make_loogle(const Values& values);
MethodInfo m4le_info();
TaskList make_m4le(const Values& values);
MethodInfo longproc_info();
TaskList make_longproc(const Values& values);
MethodInfo hellobench_info();
TaskList make_hellobench(const Values& values);
MethodInfo ada_leval_info();
TaskList make_ada_leval(const Values& values);
MethodInfo needle_threading_info();
TaskList make_needle_threading(const Values& values);
MethodInfo ruler_file_info();
TaskList make_ruler_file(const Values& values);

}  // namespace fathom::eval
