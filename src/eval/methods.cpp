// The tasks of `fathom eval`: one line each.
#include "eval/sets/sets.h"
#include "eval/tasks/tasks.h"

namespace fathom {
namespace {

using Entry = MethodTable<TaskMethod>::Entry;

std::vector<Entry> ruler_tasks() {
  std::vector<Entry> tasks = ruler_needle_tasks();
  tasks.push_back({ruler_variables_info(), make_ruler_variables});
  tasks.push_back({ruler_common_words_info(), make_ruler_common_words});
  tasks.push_back({ruler_frequent_words_info(), make_ruler_frequent_words});
  tasks.push_back({ruler_qa_1_info(), make_ruler_qa_1});
  tasks.push_back({ruler_qa_2_info(), make_ruler_qa_2});
  return tasks;
}

/// All 13 with their defaults.
Entry ruler_suite() {
  return {{"",
           "ruler",
           "the 13 tasks of RULER: all from here to qa_2",
           "RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024",
           false,
           "nothing",
           "",
           "",
           {}},
          [](const Values&) {
            TaskList all;
            for (const Entry& entry : ruler_tasks()) {
              for (auto& task : entry.make(check_values({entry.info.name, {}}, entry.info.parameters)))
                all.push_back(std::move(task));
            }
            return all;
          }};
}

std::vector<Entry> all_tasks() {
  std::vector<Entry> tasks = ruler_tasks();
  tasks.insert(tasks.begin(), ruler_suite());
  tasks.push_back({needle_info(), make_needle});
  tasks.push_back({passkey_info(), make_passkey});
  tasks.push_back({lines_info(), make_lines});
  tasks.push_back({perplexity_info(), make_perplexity});
  return tasks;
}

}  // namespace

const MethodTable<TaskMethod>& task_methods() {
  static const MethodTable<TaskMethod> table("task", all_tasks());
  return table;
}

}  // namespace fathom
