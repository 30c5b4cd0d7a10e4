#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"
#include "serve/service.h"

namespace fathom::serve {

/// Who sends a request.
struct Caller {
  std::string client;           // whose contexts and limits the request has
  std::function<bool()> alive;  // returns false if the client is gone; not for streams
};

/// The connection of a stream.
struct Connection {
  std::function<bool(std::string_view)> write;  // returns false if the client is gone
  std::function<bool()> alive;                  // returns false if the client is gone
};

/// Fields of a JSON body that several APIs share. All throw ApiError that names the field.
Json parse_body(const std::string& body);
std::string required_text(const Json& body, std::string_view field);
bool flag(const Json& body, std::string_view field, bool fallback);
int64_t integer(const Json& body, std::string_view field, int64_t fallback, int64_t min, int64_t max);
double number(const Json& body, std::string_view field, double fallback, double min, double max);
/// Returns the text of a message's content: a string, or a list of parts, which must be texts.
std::string content_text(const Json& content, std::string_view field);
/// Returns the field `messages`, a list of at least one.
const Json& required_messages(const Json& body);
/// Returns the items of a list; none if the field is absent or null.
std::vector<Json> list_of(const Json& body, std::string_view field);
/// Returns the objects of a list; none if the field is absent or null.
std::vector<Json> objects_of(const Json& body, std::string_view field);
/// Appends the messages of a list in the form of OpenAI's chat completions, with calls of tools and their results.
void add_messages(const Json& list, Messages& messages);
/// Returns a tool in the form of TemplateInputs::tools.
Json tool_of(const std::string& name, const Json* description, const Json* parameters);
/// Returns a message of the assistant's with a call of a tool. arguments: JSON of an object.
ChatMessage call_message(const std::string& id, const std::string& name, const std::string& arguments);
/// Reads tools and tool_choice in the form of OpenAI's chat completions or responses.
void read_tools(const Json& body, ToolUse& use);
/// Sets the tool that must be called. Throws ApiError if it is not one of the tools.
void require_tool(ToolUse& use, const std::string& name);
/// Returns a string, or the strings of a list; none if the field is absent or null.
std::vector<std::string> text_list(const Json& body, std::string_view field);
/// Reads temperature, top_p, top_k, min_p, presence_penalty, frequency_penalty, seed, and the object `fathom` with
/// attend, draft, priority, progress and attention, into a request.
void read_options(const Json& body, TextRequest& request);

/// Returns the body of an error in the form of the APIs of OpenAI.
Json openai_error(int status, const std::string& message, const std::string& code);
/// Returns the body of an error in the form of the API of Anthropic.
Json anthropic_error(int status, const std::string& message);

/// Returns an identifier with this prefix, different for each request.
std::string new_id(std::string_view prefix);
/// Returns the time in seconds since 1970.
int64_t now_seconds();

/// A response: a complete body, or a stream of events.
struct ApiResponse {
  Json body;
  std::function<void(const Connection&)> stream;  // empty: `body`
};

/// A handler of POST requests with a JSON body.
using ApiHandler = ApiResponse(Service& service, const Caller& caller, const Json& body);
ApiHandler openai_chat;        // /v1/chat/completions
ApiHandler openai_completion;  // /v1/completions
ApiHandler openai_response;    // /v1/responses
ApiHandler anthropic_message;  // /v1/messages
ApiHandler anthropic_count;    // /v1/messages/count_tokens
ApiHandler embeddings;         // /v1/embeddings
ApiHandler rerank;             // /v1/rerank

}  // namespace fathom::serve
