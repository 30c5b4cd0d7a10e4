#include "train/training_tasks.h"

#include "train/training_parts.h"

namespace fathom::train {

TaskSources training_tasks() {
  TaskSources tasks;
  for (const TaskSources& family : {fact_tasks(), chain_tasks(), list_tasks()})
    tasks.insert(tasks.end(), family.begin(), family.end());
  return tasks;
}

std::vector<std::string_view> training_templates() {
  std::vector<std::string_view> templates;
  add_fact_templates(templates);
  add_surroundings_templates(templates);
  add_chain_templates(templates);
  add_list_templates(templates);
  return templates;
}

}  // namespace fathom::train
