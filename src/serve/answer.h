#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "serve/service.h"
#include "tokens/answer_parser.h"

namespace fathom::serve {

/// A call of a tool in an answer.
struct ToolCall {
  std::string id, name, arguments;  // JSON; not complete if the answer was too long
};

/// The parts of an answer.
struct DividedAnswer {
  std::string reasoning, text;
  std::vector<ToolCall> calls;
  std::vector<TokenLogprobs> logprobs;  // of all tokens, if the request asks for them
  std::shared_ptr<const JobResult> result;
};

/// What a client does with the parts of an answer while it is generated. Each function may be empty, and returns
/// false to end the answer.
struct AnswerEvents {
  std::function<bool(const PromptProgress&)> on_progress{};
  std::function<bool(std::string_view)> on_reasoning{};
  std::function<bool(std::string_view)> on_text{};
  std::function<bool(const ToolCall& call, size_t index)> on_call{};  // without arguments
  std::function<bool(std::string_view part, size_t index)> on_arguments{};
  std::function<bool(const TokenLogprobs&)> on_logprobs{};
  std::function<bool()> alive{};  // whether the client still listens
};

/// Waits for the end of the answer to a request and divides its text. Throws ApiError if it fails.
DividedAnswer read_answer(Service& service, Job& job, const TextRequest& request, const AnswerEvents& events = {});

}  // namespace fathom::serve
