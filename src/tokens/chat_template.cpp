#include "tokens/chat_template.h"

#include "tokens/jinja/evaluator.h"
#include "tokens/jinja/parser.h"

namespace fathom {
namespace {

// Maximum number of steps of a template: a fixed number plus a number per byte of the messages. A template scans
// the messages a few times, and 16 bytes of text count as one step.
constexpr int64_t kSteps = 10'000'000;
constexpr int64_t kStepsPerByte = 4;

}  // namespace

struct ChatTemplate::Parsed {
  jinja::Body body;
};

ChatTemplate::ChatTemplate(std::string source, std::string bos, std::string eos)
    : parsed_(std::make_unique<Parsed>(Parsed{jinja::parse(source)})), bos_(std::move(bos)), eos_(std::move(eos)) {}

ChatTemplate::~ChatTemplate() = default;

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                                 const std::map<std::string, bool>& switches) const {
  using jinja::Value;
  int64_t steps = kSteps;
  std::vector<Value> list;
  for (const ChatMessage& message : messages) {
    steps += kStepsPerByte * static_cast<int64_t>(message.role.size() + message.content.size());
    list.push_back(Value::make_dict({{"role", message.role}, {"content", message.content}}));
  }
  jinja::Variables variables{{"messages", Value::make_list(std::move(list))},
                             {"add_generation_prompt", add_generation_prompt},
                             {"bos_token", bos_},
                             {"eos_token", eos_},
                             {"tools", Value::none()},
                             {"documents", Value::none()}};
  for (const auto& [name, on] : switches) variables.insert_or_assign(name, Value(on));
  return jinja::Evaluator(std::move(variables), steps).render(parsed_->body);
}

}  // namespace fathom
