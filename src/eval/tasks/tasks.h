#pragma once

#include <vector>

#include "eval/task.h"

namespace fathom {

// Tasks that make their own text, one family a file of this folder.

/// RULER's eight: niah_single_1 to niah_multiquery.
std::vector<MethodTable<TaskMethod>::Entry> ruler_needle_tasks();
MethodInfo ruler_variables_info();
TaskList make_ruler_variables(const Values& values);
MethodInfo ruler_common_words_info();
TaskList make_ruler_common_words(const Values& values);
MethodInfo ruler_frequent_words_info();
TaskList make_ruler_frequent_words(const Values& values);
MethodInfo ruler_qa_1_info();
TaskList make_ruler_qa_1(const Values& values);
MethodInfo ruler_qa_2_info();
TaskList make_ruler_qa_2(const Values& values);

MethodInfo needle_info();
TaskList make_needle(const Values& values);
MethodInfo passkey_info();
TaskList make_passkey(const Values& values);
MethodInfo lines_info();
TaskList make_lines(const Values& values);
MethodInfo perplexity_info();
TaskList make_perplexity(const Values& values);

}  // namespace fathom
