#pragma once

#include <vector>

#include "eval/task.h"

namespace fathom::eval {

// Tasks that generate their text; one family per file of this folder.

/// RULER's eight needle tasks, niah_single_1 to niah_multiquery.
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

MethodInfo kv_threads_info();
TaskList make_kv_threads(const Values& values);
MethodInfo classify_info();
TaskList make_classify(const Values& values);
MethodInfo text_sort_info();
TaskList make_text_sort(const Values& values);
MethodInfo best_answer_info();
TaskList make_best_answer(const Values& values);
MethodInfo word_recall_info();
TaskList make_word_recall(const Values& values);
MethodInfo mqar_info();
TaskList make_mqar(const Values& values);
MethodInfo regular_language_info();
TaskList make_regular_language(const Values& values);
MethodInfo reorder_info();
TaskList make_reorder(const Values& values);
MethodInfo path_traversal_info();
TaskList make_path_traversal(const Values& values);
MethodInfo countdown_info();
TaskList make_countdown(const Values& values);
MethodInfo tom_tracking_info();
TaskList make_tom_tracking(const Values& values);
MethodInfo topic_of_info();
TaskList make_topic_of(const Values& values);
MethodInfo same_topic_info();
TaskList make_same_topic(const Values& values);
MethodInfo count_topic_info();
TaskList make_count_topic(const Values& values);

}  // namespace fathom::eval
