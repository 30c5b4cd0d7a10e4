#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/error.h"
#include "base/format.h"
#include "eval/metrics.h"
#include "eval/sets/longproc_scores.h"
#include "eval/sets/records.h"
#include "eval/sets/sets.h"

namespace fathom::eval {
namespace {

namespace fs = std::filesystem;
using PlaceholderValues = std::map<std::string, std::string>;

constexpr const char* kTravelFile = "travel_planning_all";

/// A set and its file.
struct ProcedureFile {
  std::string set;   // "countdown_2k"
  std::string kind;  // "countdown"
  fs::path folder;   // folder of the file
  std::string path;
};

struct ProcedureKind {
  const char* name;
  std::vector<std::string> files;  // tiers, one file each; travel_planning has one file for both tiers
  std::vector<std::string> placeholders;
  const char* document;  // the placeholder after which the question begins
  const char* prompt;
};

const std::vector<ProcedureKind>& kinds() {
  static const std::vector<ProcedureKind> all{
      {"path_traversal",
       {"0.5k", "2k", "8k"},
       {"city_context", "src_city", "dst_city"},
       "city_context",
       "{city_context}\n\nEach connection goes one way. Find the route from {src_city} to {dst_city}: go from each "
       "city "
       "to the only one it leads to until you arrive. Write it between <Route> and </Route>, one line a step, in "
       "the "
       "form:\nFrom <CITY_NAME>, take a <TRANSIT_METHOD> to <CITY_NAME>.\n"},
      {"countdown",
       {"0.5k", "2k", "8k"},
       {"demonstration", "nums", "target"},
       "demonstration",
       "Reach the target with four numbers, each used once, and with + - * /. Search depth first, as the examples "
       "show, and write the solution in the same form.\n\n{demonstration}\n\n# Your task\nNumbers: {nums}\nTarget: "
       "{target}\n\n"},
      {"tom_tracking",
       {"0.5k", "2k", "8k"},
       {"story_components", "story", "question"},
       "story",
       "In this story people move and put things in places. Whoever is in the same room as a thing sees where it "
       "is, and believes it until they see otherwise.\n\n{story_components}\n\n{story}\n\n{question}\nTrace it "
       "step by "
       "step, one line a step that begins with \"- Step\": what changed, then in braces the person's location, the "
       "thing's location, whether it is seen, and the belief.\n"},
      {"html_to_tsv",
       {"0.5k", "2k", "8k"},
       {"html_str", "task_topic", "task_description", "filtering_instruction", "tsv_header"},
       "html_str",
       "Here is a web page:\n```html\n{html_str}\n```\n\nIt is about {task_topic}. Extract these properties of "
       "each "
       "item, in the order of the page: {task_description}{filtering_instruction}\nWrite them as tab-separated "
       "rows, "
       "N/A where there is nothing, and nothing else:\n```tsv\n{tsv_header}\n"},
      {"travel_planning",
       {"all"},
       {"demonstration", "problem"},
       "demonstration",
       "Plan trips with direct flights, which go one way. The days of arrival and departure count as days of the "
       "stay. "
       "Search step by step, then write the plan between <Plan> and </Plan> as in the "
       "examples.\n\n{demonstration}\n\n"
       "# Your task\n{problem}\n"},
  };
  return all;
}

SetSource source() {
  return {"longproc", "<task>/<task>_<tier>.json, such as countdown/countdown_0.5k.json,",
          "LongProc (github.com/princeton-pli/LongProc, data/)"};
}

/// Returns the maximum number of tokens of an answer.
int64_t reserve_of(std::string_view set) {
  return set.ends_with("_0.5k") ? 1024 : set.ends_with("_2k") ? 3072 : 9216;
}

/// Returns the published prompt, a block in prompts.yaml below "USER_PROMPT: |-", or an empty text without such a
/// file.
std::string published_prompt(const fs::path& folder) {
  const fs::path file = folder / "prompts.yaml";
  if (!is_file(file.string())) return {};
  constexpr std::string_view kKey = "USER_PROMPT: |-\n";
  constexpr std::string_view kIndent = "  ";
  const std::string yaml = read_text_file(file.string());
  const size_t key = yaml.find(kKey);
  if (key == std::string::npos) fail(file.string(), ": expected a block USER_PROMPT: |-");
  std::string prompt;
  for (size_t begin = key + kKey.size(); begin < yaml.size();) {
    const size_t end = std::min(yaml.find('\n', begin), yaml.size());
    const std::string_view line = std::string_view(yaml).substr(begin, end - begin);
    begin = end + 1;
    if (!line.empty() && !line.starts_with(kIndent)) break;
    prompt += (prompt.empty() ? "" : "\n") + std::string(line.substr(std::min(line.size(), kIndent.size())));
  }
  return prompt;
}

Score as_score(const ProcedureScore& score) { return {score.accuracy, {{"partial", score.partial}}}; }

std::vector<int64_t> integers(const SetRecord& record, const char* field, const std::vector<std::string>& texts) {
  std::vector<int64_t> all;
  for (const std::string& text : texts) {
    int64_t value = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
    if (read.ec != std::errc() || read.ptr != text.data() + text.size()) {
      record.fail_at(field, "expected integers, found " + quote(text));
    }
    all.push_back(value);
  }
  return all;
}

/// Splits "a**b**c".
std::vector<std::string> split_stars(std::string_view text) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find("**", begin), text.size());
    if (end > begin) parts.emplace_back(text.substr(begin, end - begin));
    begin = end + 2;
  }
  return parts;
}

/// Reads the records of one kind (placeholder values, reference and data for scoring) and scores answers.
struct ProcedureReader {
  void (*read)(const SetRecord& record, const ProcedureFile& file, PlaceholderValues& values, Sample& sample);
  Score (*score)(const Sample& sample, const Answer& answer);
};

void read_path(const SetRecord& record, const ProcedureFile&, PlaceholderValues& values, Sample& sample) {
  const std::vector<std::string> cities = record.texts("question_repr");
  if (cities.size() != 2) record.fail_at("question_repr", concat("expected 2 cities, found ", cities.size()));
  values = {{"city_context", record.text("context_nl")}, {"src_city", cities[0]}, {"dst_city", cities[1]}};
  sample.references = {concat("<Route>\n", trim(record.text("answer_nl")), "\n</Route>")};
}

Score score_path_sample(const Sample& sample, const Answer& answer) {
  return as_score(score_path(answer.text, between_tags(sample.references.front(), "Route")));
}

void read_countdown(const SetRecord& record, const ProcedureFile&, PlaceholderValues& values, Sample& sample) {
  const std::vector<std::string> numbers = record.texts("nums");
  sample.details["nums"] = integers(record, "nums", numbers);
  sample.details["target"] = record.integer("target");
  values = {{"nums", "[" + comma_list(numbers) + "]"}, {"target", std::to_string(record.integer("target"))}};
  constexpr std::string_view kOpen = "<Search Procedure>";
  constexpr std::string_view kClose = "</Search Procedure>\n";
  std::string trace = record.text("demonstration");  // the prompt uses another header
  if (const size_t at = trace.find(kOpen); at != std::string::npos) {
    trace.replace(at, kOpen.size(), "# Search Procedure");
  }
  if (const size_t at = trace.find(kClose); at != std::string::npos) trace.erase(at, kClose.size());
  sample.references = {trace};
}

Score score_countdown_sample(const Sample& sample, const Answer& answer) {
  return as_score(score_countdown(answer.text, sample.details["nums"].get<std::vector<int64_t>>(),
                                  sample.details["target"].get<int64_t>(), sample.references.front()));
}

void read_tracking(const SetRecord& record, const ProcedureFile&, PlaceholderValues& values, Sample& sample) {
  for (const char* field : {"story_components", "story", "question"}) values[field] = record.text(field);
  sample.references = {record.text("solution")};
}

Score score_tracking_sample(const Sample& sample, const Answer& answer) {
  return as_score(score_tracking(answer.text, sample.references.front()));
}

void read_table(const SetRecord& record, const ProcedureFile& file, PlaceholderValues& values, Sample& sample) {
  for (const char* field : {"task_topic", "task_description", "filtering_instruction", "tsv_header"}) {
    values[field] = record.text(field);
  }
  const fs::path page = fs::path(record.text("html_path")).lexically_normal();
  if (page.empty() || page.is_absolute() || page.begin()->string() == "..") {
    record.fail_at("html_path", "expected a file below the set's folder, found " + quote(page.string()));
  }
  values["html_str"] = read_text_file((file.folder / page).string());
  sample.references = {"```tsv\n" + record.text("gt") + "\n```"};
}

Score score_table_sample(const Sample& sample, const Answer& answer) {
  std::string_view table = sample.references.front();
  table.remove_prefix(std::string_view("```tsv\n").size());
  table.remove_suffix(std::string_view("\n```").size());
  return as_score(score_table(answer.text, table));
}

/// Returns the plan, which follows a line of introduction.
std::string plan_of(const SetRecord& record) {
  const std::string& text = record.text("ground_truth_plan");
  const size_t begin = text.find("\n\n");
  return concat("<Plan>\n", trim(std::string_view(text).substr(begin == std::string::npos ? 0 : begin)),
                "\n</Plan>");
}

void read_travel(const SetRecord& record, const ProcedureFile&, PlaceholderValues& values, Sample& sample) {
  values["problem"] = record.text("disambig_question_text");
  const std::vector<std::string> cities = split_stars(record.text("ground_truth_cities"));
  const auto days = integers(record, "ground_truth_durations", split_stars(record.text("ground_truth_durations")));
  if (cities.empty() || cities.size() != days.size()) {
    record.fail_at("ground_truth_durations", concat("expected one for each of ", cities.size(), " cities"));
  }
  sample.details["cities"] = cities;
  sample.details["days"] = days;
  sample.references = {plan_of(record)};
}

Score score_travel_sample(const Sample& sample, const Answer& answer) {
  return as_score(score_travel(answer.text, sample.details["cities"].get<std::vector<std::string>>(),
                               sample.details["days"].get<std::vector<int64_t>>()));
}

ProcedureReader reader_of(std::string_view kind) {
  if (kind == "path_traversal") return {read_path, score_path_sample};
  if (kind == "countdown") return {read_countdown, score_countdown_sample};
  if (kind == "tom_tracking") return {read_tracking, score_tracking_sample};
  return kind == "html_to_tsv" ? ProcedureReader{read_table, score_table_sample}
                               : ProcedureReader{read_travel, score_travel_sample};
}

/// Returns whether a record belongs to the tier; the two tiers of travel_planning share a file.
bool in_tier(const SetRecord& record, const ProcedureFile& file) {
  if (file.kind != "travel_planning") return true;
  const int64_t tokens = record.integer("estimated_output_tokens");
  return file.set.ends_with("_2k") ? tokens < 2048 : tokens >= 4096 && tokens < 8192;
}

std::string travel_examples(const ProcedureFile& file) {
  const fs::path path = file.folder / "travel_planning_icl_examples.json";
  std::string examples;
  read_records(path.string(), [&](const SetRecord& record) {
    examples += (examples.empty() ? "" : "\n\n") + std::string("# Example\n") +
                record.text("disambig_question_text") + "\n\n" + plan_of(record);
  });
  return examples;
}

/// A sample and its placeholder values, before the prompt is made.
struct DraftSample {
  PlaceholderValues values;
  Sample sample;
};

/// Returns two other problems of the file as examples, because the published examples have no trace.
std::string countdown_examples(const std::vector<DraftSample>& drafts, size_t index) {
  std::string examples;
  int shown = 0;
  for (size_t i = 0; i < drafts.size() && shown < 2; ++i) {
    if (i == index) continue;
    examples +=
        concat(shown++ ? "\n\n" : "", "# Example\nNumbers: ", drafts[i].values.at("nums"),
               "\nTarget: ", drafts[i].values.at("target"), "\n\n", trim(drafts[i].sample.references.front()));
  }
  return examples;
}

/// Returns null if the file contains no record of the tier of travel_planning.
std::shared_ptr<const Task> read_set(const ProcedureFile& file, const ProcedureKind& kind) {
  const ProcedureReader reader = reader_of(file.kind);
  std::vector<DraftSample> drafts;
  read_records(file.path, [&](const SetRecord& record) {
    if (!in_tier(record, file)) return;
    DraftSample draft{{}, published_sample(reserve_of(file.set), {}, record.number())};
    reader.read(record, file, draft.values, draft.sample);
    drafts.push_back(std::move(draft));
  });
  if (drafts.empty() && file.kind == "travel_planning") return nullptr;
  // The published prompt of travel_planning shows the search of its examples, which the files do not contain.
  const std::string published = file.kind == "travel_planning" ? "" : published_prompt(file.folder);
  const PromptForm form(published.empty() ? kind.prompt : published, "longproc: " + file.kind, kind.placeholders,
                        kind.document);
  auto task = std::make_shared<SetTask>("longproc/" + file.set, reader.score);
  const std::string travel_demonstration = file.kind == "travel_planning" ? travel_examples(file) : "";
  for (size_t i = 0; i < drafts.size(); ++i) {
    PlaceholderValues values = drafts[i].values;
    if (file.kind == "countdown") values["demonstration"] = countdown_examples(drafts, i);
    if (file.kind == "travel_planning") values["demonstration"] = travel_demonstration;
    Sample sample = drafts[i].sample;
    form.fill(values, sample);
    task->add(std::move(sample));
  }
  task->finish(file.path);
  return task;
}

/// Throws Error (usage) if pseudo_to_code is requested.
void reject_programs(const Values& values) {
  const bool set = values.has("set") && values.string("set").find("pseudo_to_code") != std::string::npos;
  const bool file =
      values.has("path") && fs::path(values.string("path")).stem().string().starts_with("pseudo_to_code");
  if (!set && !file) return;
  fail_usage(
      "longproc: pseudo_to_code is scored by running the generated programs, which needs a sandboxed compiler "
      "that Fathom does not have; use the other sets");
}

}  // namespace

MethodInfo longproc_info() {
  return {.name = "longproc",
          .summary = "LongProc: long answers that follow a procedure; all tasks but pseudo_to_code",
          .paper = "LongProc: Benchmarking Long-Context Language Models on Long Procedural Generation, 2025",
          .needs = "files of the set",
          .parameters = set_parameters(source())};
}

TaskList make_longproc(const Values& values) {
  reject_programs(values);
  std::vector<std::string> names;
  std::vector<std::string> below;
  for (const ProcedureKind& kind : kinds()) {
    for (const std::string& file : kind.files) names.push_back(concat(kind.name, "_", file));
    below.emplace_back(kind.name);
    below.push_back(std::string("data/") + kind.name);
  }
  TaskList tasks;
  for (const SetFile& file : find_set_files(values, source(), names, {".json"}, below)) {
    const ProcedureKind& kind =
        *std::ranges::find_if(kinds(), [&](const ProcedureKind& k) { return file.name.starts_with(k.name); });
    const fs::path folder = fs::path(file.path).parent_path();
    std::vector<std::string> sets{file.name};
    if (file.name == kTravelFile) sets = {"travel_planning_2k", "travel_planning_8k"};
    bool any = false;
    for (const std::string& set : sets) {
      auto task = read_set({set, kind.name, folder, file.path}, kind);
      any |= task != nullptr;
      if (task) tasks.push_back(std::move(task));
    }
    if (!any) fail(file.path, ": contains no records with estimated_output_tokens below 2048 or from 4096 to 8191");
  }
  return tasks;
}

}  // namespace fathom::eval
