#include "tokens/chat_template.h"

#include "tokens/jinja/evaluator.h"
#include "tokens/jinja/parser.h"

namespace fathom {
namespace {

// Maximum number of steps of a template: a fixed number plus a number per byte of the messages. A template scans
// the messages a few times, and 16 bytes of text count as one step.
constexpr int64_t kSteps = 10'000'000;
constexpr int64_t kStepsPerByte = 4;
constexpr int64_t kBytesPerItem = 16;  // of Value::weight()

jinja::Value to_value(const Json& json) {
  using jinja::Value;
  if (json.is_null()) return Value::none();
  if (json.is_boolean()) return {json.get<bool>()};
  if (json.is_number_integer()) return {json.get<int64_t>()};
  if (json.is_number()) return {json.get<double>()};
  if (json.is_string()) return {json.text()};
  if (json.is_array()) {
    std::vector<Value> items;
    for (const Json& item : json.items()) items.push_back(to_value(item));
    return Value::make_list(std::move(items));
  }
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [name, value] : json.fields()) entries.emplace_back(name, to_value(value));
  return Value::make_dict(std::move(entries));
}

}  // namespace

struct ChatTemplate::Parsed {
  jinja::Body body;
};

ChatTemplate::ChatTemplate(std::string source, std::string bos, std::string eos)
    : parsed_(std::make_unique<Parsed>(Parsed{jinja::parse(source)})),
      source_(std::move(source)),
      bos_(std::move(bos)),
      eos_(std::move(eos)) {}

ChatTemplate::~ChatTemplate() = default;

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                                 const TemplateInputs& inputs) const {
  using jinja::Value;
  int64_t steps = kSteps;
  std::vector<Value> list;
  for (const ChatMessage& message : messages) {
    std::vector<std::pair<Value, Value>> entries{{"role", message.role}, {"content", message.content}};
    for (const auto& [name, value] : message.fields.fields()) entries.emplace_back(name, to_value(value));
    const Value& dict = list.emplace_back(Value::make_dict(std::move(entries)));
    steps += kStepsPerByte * kBytesPerItem * dict.weight();
  }
  const Value tools = to_value(inputs.tools);
  steps += kStepsPerByte * kBytesPerItem * tools.weight();
  jinja::Variables variables{{"messages", Value::make_list(std::move(list))},
                             {"add_generation_prompt", add_generation_prompt},
                             {"bos_token", bos_},
                             {"eos_token", eos_},
                             {"tools", tools},
                             {"documents", Value::none()}};
  for (const auto& [name, on] : inputs.switches) variables.insert_or_assign(name, Value(on));
  return jinja::Evaluator(std::move(variables), steps).render(parsed_->body);
}

}  // namespace fathom
