#include "serve/answer.h"

#include "serve/api.h"

namespace fathom::serve {

DividedAnswer read_answer(Service& service, Job& job, const TextRequest& request, const AnswerEvents& events) {
  DividedAnswer answer;
  bool continues = true;
  const auto report = [&](const auto& event, const auto&... arguments) {
    if (event) continues = event(arguments...) && continues;
  };
  AnswerHandler handler;
  handler.on_reasoning = [&](std::string_view text) {
    answer.reasoning += text;
    report(events.on_reasoning, text);
  };
  handler.on_text = [&](std::string_view text) {
    answer.text += text;
    report(events.on_text, text);
  };
  handler.on_call = [&](std::string_view name) {
    answer.calls.push_back({new_id("call_"), std::string(name), ""});
    report(events.on_call, answer.calls.back(), answer.calls.size() - 1);
  };
  handler.on_arguments = [&](std::string_view part) {
    answer.calls.back().arguments += part;
    report(events.on_arguments, part, answer.calls.size() - 1);
  };
  const bool calls = request.tools.choice != ToolUse::Choice::kNone;
  AnswerFormat format = request.messages.empty() ? AnswerFormat() : service.answer_format();
  format.begins_reasoning &= Service::reasons(request);
  AnswerParser parser(format, calls ? request.tools.tools : Json(), std::move(handler),
                      service.forced_beginning(request));
  answer.result = service.scheduler().wait(job, {.on_progress = events.on_progress,
                                                 .on_text =
                                                     [&](const std::string& text) {
                                                       parser.add(text);
                                                       return continues;
                                                     },
                                                 .on_logprobs =
                                                     [&](const TokenLogprobs& token) {
                                                       answer.logprobs.push_back(token);
                                                       report(events.on_logprobs, token);
                                                       return continues;
                                                     },
                                                 .on_wait = events.alive});
  parser.finish();
  return answer;
}

}  // namespace fathom::serve
