#include "serve/server.h"

#include <httplib.h>

#include <algorithm>

#include "attend/methods.h"
#include "base/content_hash.h"
#include "base/error.h"
#include "base/format.h"
#include "base/stopwatch.h"
#include "decode/draft.h"
#include "serve/api.h"
#include "serve/api_error.h"
#include "serve/client_socket.h"
#include "serve/metrics.h"
#include "serve/page.h"

namespace fathom::serve {
namespace {

using httplib::Request;
using httplib::Response;

constexpr int kTimeout = 60;  // seconds that a client may take to send or receive a part
/// What the page may load: its own files, and nothing of other servers.
constexpr const char* kPagePolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action "
    "'none'; base-uri 'none'; frame-ancestors 'none'";
constexpr size_t kMostThreads = 1024;  // of connections

/// Returns whether two texts are equal, in a time that depends on their lengths alone.
bool equal_in_constant_time(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i)
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b.empty() ? 0 : b[i % b.size()]);
  return difference == 0;
}

/// Returns the key that a request carries.
std::string key_of(const Request& request) {
  constexpr std::string_view kBearer = "Bearer ";
  const std::string authorization = request.get_header_value("Authorization");
  if (authorization.starts_with(kBearer)) return authorization.substr(kBearer.size());
  return request.get_header_value("x-api-key");
}

bool is_page(const Request& request) {
  return request.method == "GET" && std::ranges::count(page_files(), request.path, &PageFile::path) > 0;
}

bool is_anthropic(const Request& request) { return request.path.starts_with("/v1/messages"); }

void send_json(Response& response, const Json& body, int status = 200) {
  response.status = status;
  response.set_content(body.dump(), "application/json");
}

void send_error(const Request& request, Response& response, int status, const std::string& message,
                const std::string& code = "") {
  send_json(response,
            is_anthropic(request) ? anthropic_error(status, message) : openai_error(status, message, code), status);
}

Json to_json(const NamedContext& context) {
  return {{"object", "context"},
          {"name", context.name},
          {"tokens", context.tokens},
          {"bytes", context.text_bytes},
          {"file_bytes", context.file_bytes},
          {"created", context.created},
          {"status", "ready"}};
}

Json to_json(const PromptProgress& progress) {
  const double speed = progress.seconds > 0 ? static_cast<double>(progress.processed) / progress.seconds : 0;
  const auto left = static_cast<double>(progress.total - progress.cached - progress.processed);
  return {{"total", progress.total},
          {"cached", progress.cached},
          {"processed", progress.processed},
          {"tokens_per_second", speed},
          {"seconds_left", speed > 0 ? Json(left / speed) : Json()}};
}

/// Returns the text with ranges of bytes replaced. edits: ascending, without overlap.
std::string edited_text(const std::string& text, const Json& edits) {
  std::string result;
  int64_t at = 0;
  for (const Json& edit : edits.items()) {
    const int64_t begin = integer(edit, "begin", -1, 0, std::ssize(text)),
                  end = integer(edit, "end", -1, 0, std::ssize(text));
    if (begin < at || end < begin)
      throw ApiError(400,
                     concat("edits: expected ascending ranges of the ", text.size(), " bytes of the text, found ",
                            begin, " to ", end),
                     "invalid_value");
    result.append(text, at, begin - at).append(required_text(edit, "text"));
    at = end;
  }
  return result.append(text, at);
}

Json describe_methods() {
  Json attend = Json::array(), draft = Json::array();
  const auto describe = [](const MethodInfo& info) {
    Json parameters = Json::array();
    for (const Parameter& parameter : info.parameters)
      parameters.push_back(
          {{"name", parameter.name}, {"default", parameter.default_value}, {"summary", parameter.summary}});
    return Json{{"name", info.name}, {"summary", info.summary}, {"parameters", parameters}};
  };
  for (const auto& entry : attend_methods().entries()) attend.push_back(describe(entry.info));
  for (const auto& entry : draft_methods().entries()) draft.push_back(describe(entry.info));
  return {{"attend", attend}, {"draft", draft}};
}

std::unique_ptr<httplib::Server> make_server(const ServerOptions& options) {
  if (options.certificate.empty()) return std::make_unique<httplib::Server>();
  auto server = std::make_unique<httplib::SSLServer>(options.certificate.c_str(), options.private_key.c_str());
  if (!server->is_valid())
    fail(options.certificate, " and ", options.private_key,
         ": expected PEM files of a certificate and its private key");
  return server;
}

}  // namespace

struct Server::Http {
  Http(Service& served, ServerOptions given)
      : service(served), options(std::move(given)), server(make_server(options)) {
    const SchedulerOptions& limits = service.options().scheduler;
    const size_t threads = std::min<size_t>(static_cast<size_t>(limits.slots + limits.queue) + 16, kMostThreads);
    server->new_task_queue = [threads] { return new httplib::ThreadPool(threads); };
    server->set_payload_max_length(options.max_body);
    server->set_read_timeout(kTimeout);
    server->set_write_timeout(kTimeout);
    server->set_tcp_nodelay(true);
    server->set_keep_alive_max_count(1000);
    server->set_pre_routing_handler(
        [this](const Request& request, Response& response) { return admit(request, response); });
    server->set_error_handler(httplib::Server::Handler([](const Request& request, Response& response) {
      if (!response.body.empty()) return;
      const char* message = response.status == 404   ? "there is no such endpoint"
                            : response.status == 413 ? "the request is larger than this server accepts"
                                                     : "the request cannot be read";
      send_error(request, response, response.status, message);
    }));
    add_texts();
    add_tokens();
    add_contexts();
    add_state();
    for (const PageFile& file : page_files()) {
      server->Get(std::string(file.path), [&file](const Request&, Response& response) {
        response.set_header("Content-Security-Policy", kPagePolicy);
        response.set_header("X-Content-Type-Options", "nosniff");
        response.set_header("Referrer-Policy", "no-referrer");
        response.set_content(file.text.data(), file.text.size(), std::string(file.type));
      });
    }
  }

  /// Returns the client of a request, whose contexts and limits it has.
  std::string client_of(const Request& request) const {
    return options.keys.empty() ? "" : format_hex(hash_content(key_of(request)));
  }

  /// Refuses requests without a key, and those of web pages of other origins.
  httplib::Server::HandlerResponse admit(const Request& request, Response& response) const {
    const std::string origin = request.get_header_value("Origin"), host = request.get_header_value("Host");
    const bool allowed = !origin.empty() && (origin == options.origin || options.origin == "*");
    const bool own = origin.empty() || origin == "http://" + host || origin == "https://" + host;
    if (allowed) {
      response.set_header("Access-Control-Allow-Origin", options.origin);
      response.set_header("Access-Control-Allow-Headers",
                          "authorization, content-type, x-api-key, anthropic-version");
      response.set_header("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE");
    }
    if (!own && !allowed) {
      send_error(request, response, 403, "requests of web pages of other origins are off: see --cors");
      return httplib::Server::HandlerResponse::Handled;
    }
    if (request.method == "OPTIONS") {
      response.status = 204;
      return httplib::Server::HandlerResponse::Handled;
    }
    if (request.path == "/health" || is_page(request) || options.keys.empty())
      return httplib::Server::HandlerResponse::Unhandled;
    const std::string key = key_of(request);
    bool known = false;
    for (const std::string& own_key : options.keys) known |= equal_in_constant_time(key, own_key);
    if (known) return httplib::Server::HandlerResponse::Unhandled;
    send_error(request, response, 401, "the request needs an API key: Authorization: Bearer KEY",
               "invalid_api_key");
    return httplib::Server::HandlerResponse::Handled;
  }

  /// Runs a handler and turns its errors into responses.
  template <class Handler>
  httplib::Server::Handler guarded(Handler handler) const {
    return [this, handler](const Request& request, Response& response) {
      try {
        handler(request, response, client_of(request));
      } catch (const Refused& refused) {
        response.set_header("Retry-After", std::to_string(refused.retry_seconds()));
        send_error(request, response, refused.status(), refused.what(), refused.code());
      } catch (...) {
        const ApiError error = public_error(std::current_exception());
        send_error(request, response, error.status(), error.what(), error.code());
      }
    };
  }

  static void respond(Response& response, ApiResponse result) {
    if (!result.stream) return send_json(response, result.body);
    response.set_header("Cache-Control", "no-cache");
    response.set_chunked_content_provider(
        "text/event-stream", [stream = std::move(result.stream)](size_t, httplib::DataSink& sink) {
          stream({[&](std::string_view part) { return sink.write(part.data(), part.size()); },
                  [&] { return sink.is_writable(); }});
          sink.done();
          return true;
        });
  }

  void add_texts() {
    const auto add = [&](const char* path, ApiHandler* handler) {
      server->Post(path,
                   guarded([this, handler](const Request& request, Response& response, const std::string& client) {
                     const auto socket = std::make_shared<ClientSocket>(request.remote_addr, request.remote_port);
                     const Caller caller{client, [socket] { return socket->alive(); }};
                     respond(response, handler(service, caller, parse_body(request.body)));
                   }));
    };
    add("/v1/chat/completions", openai_chat);
    add("/v1/completions", openai_completion);
    add("/v1/responses", openai_response);
    add("/v1/embeddings", embeddings);
    add("/v1/rerank", rerank);
    add("/v1/messages", anthropic_message);
    add("/v1/messages/count_tokens", anthropic_count);
    constexpr const char* kStored = "/v1/responses/([^/]+)";
    server->Get(kStored, guarded([this](const Request& request, Response& response, const std::string& client) {
                  const auto found = service.conversations().find(client, request.matches[1]);
                  if (!found) throw ApiError(404, "there is no such response", "response_not_found");
                  send_json(response, found->body);
                }));
    server->Delete(kStored, guarded([this](const Request& request, Response& response, const std::string& client) {
                     const std::string id = request.matches[1];
                     if (!service.conversations().remove(client, id))
                       throw ApiError(404, "there is no such response", "response_not_found");
                     send_json(response, {{"id", id}, {"object", "response"}, {"deleted", true}});
                   }));
  }

  void add_tokens() {
    server->Post(
        "/tokenize", guarded([this](const Request& request, Response& response, const std::string&) {
          const Json body = parse_body(request.body);
          const EncodeOptions encode{flag(body, "add_special", false), flag(body, "parse_special", true)};
          send_json(response, {{"tokens", service.tokenizer().encode(required_text(body, "content"), encode)}});
        }));
    server->Post("/detokenize", guarded([this](const Request& request, Response& response, const std::string&) {
                   const Json body = parse_body(request.body);
                   const Json* tokens = body.find("tokens");
                   if (!tokens) throw ApiError(400, "tokens: expected a list of token ids", "missing_field");
                   try {
                     send_json(response, {{"content",
                                           service.tokenizer().decode(tokens->get<std::vector<int32_t>>(), true)}});
                   } catch (const Error& error) {
                     throw ApiError(400, concat("tokens: ", error.what()), "invalid_value");
                   }
                 }));
    server->Post("/apply-template", guarded([this](const Request& request, Response& response, const std::string&) {
                   const Json body = parse_body(request.body);
                   Messages messages;
                   add_messages(required_messages(body), messages);
                   ToolUse use;
                   read_tools(body, use);
                   send_json(response, {{"prompt", service.render(messages, use)}});
                 }));
  }

  void add_contexts() {
    constexpr const char* kNamed = "/v1/contexts/([^/]+)";
    server->Get("/v1/contexts", guarded([this](const Request&, Response& response, const std::string& client) {
                  Json data = Json::array();
                  for (const NamedContext& context : service.contexts().list(client))
                    data.push_back(to_json(context));
                  send_json(response, {{"object", "list"}, {"data", data}});
                }));
    server->Get(kNamed, guarded([this](const Request& request, Response& response, const std::string& client) {
                  const auto found = service.contexts().find(client, request.matches[1]);
                  if (!found) throw ApiError(404, "there is no such context", "context_not_found");
                  send_json(response, to_json(*found));
                }));
    server->Get(concat(kNamed, "/text"),
                guarded([this](const Request& request, Response& response, const std::string& client) {
                  response.set_content(service.contexts().text(client, request.matches[1]).text,
                                       "text/plain; charset=utf-8");
                }));
    server->Delete(kNamed, guarded([this](const Request& request, Response& response, const std::string& client) {
                     if (!service.remove_context(client, request.matches[1]))
                       throw ApiError(404, "there is no such context", "context_not_found");
                     send_json(response, {{"deleted", true}});
                   }));
    server->Put(kNamed, guarded([this](const Request& request, Response& response, const std::string& client) {
                  put_context(request, response, client);
                }));
    server->Post(concat(kNamed, "/edits"),
                 guarded([this](const Request& request, Response& response, const std::string& client) {
                   edit_context(request, response, client);
                 }));
  }

  void put_context(const Request& request, Response& response, const std::string& client) {
    const std::string name = request.matches[1];
    ContextStore::check_name(name);
    std::string text = request.body;
    if (request.get_header_value("Content-Type").starts_with("application/json"))
      text = required_text(parse_body(request.body), "text");
    if (request.get_header_value("Accept").find("text/event-stream") == std::string::npos)
      return send_json(response, to_json(service.read_context(client, name, std::move(text),
                                                              [](const PromptProgress&) { return true; })));
    respond(response, {{}, [this, client, name, text](const Connection& connection) {
                         const auto send = [&](const char* event, const Json& data) {
                           return connection.write(concat("event: ", event, "\ndata: ", data.dump(), "\n\n"));
                         };
                         try {
                           const NamedContext context = service.read_context(
                               client, name, text,
                               [&](const PromptProgress& progress) { return send("progress", to_json(progress)); });
                           send("done", to_json(context));
                         } catch (...) {
                           const ApiError error = public_error(std::current_exception());
                           send("error", openai_error(error.status(), error.what(), error.code()));
                         }
                       }});
  }

  void edit_context(const Request& request, Response& response, const std::string& client) {
    const std::string name = request.matches[1];
    const Json body = parse_body(request.body);
    const Json* edits = body.find("edits");
    std::string text;
    if (edits) {
      if (!edits->is_array()) throw ApiError(400, "edits: expected a list", "invalid_value");
      text = edited_text(service.contexts().text(client, name).text, *edits);
    } else {
      text = required_text(body, "text");
    }
    const Stopwatch watch;
    const EditReport report = service.edit_context(client, name, std::move(text), flag(body, "exact", false));
    const double seconds = watch.seconds();
    const auto context = service.contexts().find(client, name);
    const int64_t tokens = context ? context->tokens : 0;
    send_json(response, {{"tokens", tokens},
                         {"read", report.read},
                         {"moved", report.moved},
                         {"kept", report.kept},
                         {"seconds", seconds},
                         {"context", context ? to_json(*context) : Json()}});
  }

  void add_state() {
    server->Get("/health", [](const Request&, Response& response) { send_json(response, {{"status", "ok"}}); });
    server->Get("/v1/models", guarded([this](const Request&, Response& response, const std::string&) {
                  Json model = {{"id", service.options().name},
                                {"object", "model"},
                                {"created", started},
                                {"owned_by", "fathom"},
                                {"context_length", service.context_length()}};
                  send_json(response, {{"object", "list"}, {"data", Json::array({model})}});
                }));
    server->Get("/metrics", guarded([this](const Request&, Response& response, const std::string&) {
                  response.set_content(metrics_text(service.scheduler().stats()), "text/plain; version=0.0.4");
                }));
    server->Get("/slots", guarded([this](const Request&, Response& response, const std::string&) {
                  Json slots = Json::array();
                  for (const SchedulerStats::Slot& slot : service.scheduler().stats().slots)
                    slots.push_back({{"prompt_tokens", slot.prompt_tokens},
                                     {"read_tokens", slot.read_tokens},
                                     {"generated_pieces", slot.pieces}});
                  send_json(response, slots);
                }));
    server->Get("/props", guarded([this](const Request&, Response& response, const std::string&) {
                  const SchedulerStats stats = service.scheduler().stats();
                  const ModelConfig& config = service.model().config();
                  send_json(
                      response,
                      {{"name", service.options().name},
                       {"version", service.options().version},
                       {"model",
                        {{"name", config.name},
                         {"architecture", config.architecture},
                         {"context_length", service.context_length()}}},
                       {"cache", service.options().session.cache},
                       {"methods", describe_methods()},
                       {"limits", {{"max_upload_bytes", options.max_body}}},
                       {"memory", {{"used_bytes", stats.memory_used}, {"budget_bytes", stats.memory_limit}}}});
                }));
  }

  Service& service;
  ServerOptions options;
  int64_t started = now_seconds();
  std::unique_ptr<httplib::Server> server;
};

Server::Server(Service& service, ServerOptions options)
    : http_(std::make_unique<Http>(service, std::move(options))) {}

Server::~Server() = default;

int Server::bind() {
  const ServerOptions& options = http_->options;
  const bool any = options.port == 0;
  const int port = any ? http_->server->bind_to_any_port(options.host)
                   : http_->server->bind_to_port(options.host, options.port) ? options.port
                                                                             : -1;
  if (port < 0)
    fail(options.host, ":", options.port,
         ": cannot listen: is another program using the port? Give one with --port");
  return port;
}

void Server::run() { http_->server->listen_after_bind(); }

void Server::stop() { http_->server->stop(); }

}  // namespace fathom::serve
