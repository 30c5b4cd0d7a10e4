// The tasks of `fathom eval`: one line each.
#include "eval/sets/sets.h"
#include "eval/tasks/tasks.h"

namespace fathom {

const MethodTable<TaskMethod>& task_methods() {
  static const MethodTable<TaskMethod> table("task", {{kv_threads_info(), make_kv_threads},
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
                                                      {count_topic_info(), make_count_topic}});
  return table;
}

}  // namespace fathom
