// The table of the tasks of `fathom eval`.
#include "eval/sets/sets.h"
#include "eval/tasks/tasks.h"

namespace fathom::eval {
namespace {

using TaskEntries = std::vector<MethodTable<TaskMethod>::Entry>;

TaskEntries ruler_tasks() {
  TaskEntries tasks = ruler_needle_tasks();
  tasks.insert(tasks.end(), {
                                {ruler_variables_info(), make_ruler_variables},
                                {ruler_common_words_info(), make_ruler_common_words},
                                {ruler_frequent_words_info(), make_ruler_frequent_words},
                                {ruler_qa_1_info(), make_ruler_qa_1},
                                {ruler_qa_2_info(), make_ruler_qa_2},
                            });
  return tasks;
}

/// Makes the 13 tasks of RULER with their defaults.
TaskList make_ruler(const Values&) {
  TaskList all;
  for (const auto& [info, make] : ruler_tasks()) {
    for (auto& task : make(check_values({info.name, {}}, info.parameters))) all.push_back(std::move(task));
  }
  return all;
}
MethodInfo ruler_info() {
  MethodInfo info = ruler_variables_info();
  info.name = "ruler";
  info.summary = "all 13 tasks of RULER with their defaults";
  info.parameters.clear();
  return info;
}

TaskEntries other_tasks() {
  return {
      {needle_info(), make_needle},
      {passkey_info(), make_passkey},
      {lines_info(), make_lines},
      {kv_threads_info(), make_kv_threads},
      {classify_info(), make_classify},
      {text_sort_info(), make_text_sort},
      {best_answer_info(), make_best_answer},
      {word_recall_info(), make_word_recall},
      {mqar_info(), make_mqar},
      {regular_language_info(), make_regular_language},
      {reorder_info(), make_reorder},
      {path_traversal_info(), make_path_traversal},
      {countdown_info(), make_countdown},
      {tom_tracking_info(), make_tom_tracking},
      {topic_of_info(), make_topic_of},
      {same_topic_info(), make_same_topic},
      {count_topic_info(), make_count_topic},
      {perplexity_info(), make_perplexity},
  };
}

TaskEntries published_sets() {
  return {
      {ruler_file_info(), make_ruler_file},
      {longbench_info(), make_longbench},
      {longbench_v2_info(), make_longbench_v2},
      {infinitebench_info(), make_infinitebench},
      {loogle_info(), make_loogle},
      {m4le_info(), make_m4le},
      {longproc_info(), make_longproc},
      {hellobench_info(), make_hellobench},
      {ada_leval_info(), make_ada_leval},
      {needle_threading_info(), make_needle_threading},
  };
}

TaskEntries all_tasks() {
  TaskEntries all = {{ruler_info(), make_ruler}};
  for (const TaskEntries& entries : {ruler_tasks(), other_tasks(), published_sets()})
    all.insert(all.end(), entries.begin(), entries.end());
  return all;
}

}  // namespace

const MethodTable<TaskMethod>& task_methods() {
  static const MethodTable<TaskMethod> table("task", all_tasks());
  return table;
}

}  // namespace fathom::eval
