#pragma once

#include <gtest/gtest.h>
#include <httplib.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/json.h"
#include "serve/server.h"
#include "session/seedling.h"

namespace fathom::serve {

inline constexpr const char* kTemplate =
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</{{ m['role'] }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";

/// A running server of the small model.
class RunningServer {
 public:
  explicit RunningServer(const std::string& folder, ServerOptions options = {}, const char* chat_template = nullptr,
                         int64_t context = 1024) {
    const auto engine = std::make_shared<Engine>(test::seedling(), std::make_shared<Runtime>(2),
                                                 EngineOptions{.memory = 256 << 20});
    ServiceOptions service;
    service.session.chunk = 64;
    service.session.context = context;
    service.session.disk_cache = std::make_shared<DiskCache>(folder + "/cache", int64_t{1} << 30);
    service.contexts = folder + "/contexts";
    service.name = "seedling";
    service_ = std::make_unique<Service>(
        engine, std::make_shared<const Tokenizer>(Vocabulary::read(*test::seedling()->file())),
        chat_template ? std::make_unique<const ChatTemplate>(chat_template, "", "") : nullptr, service);
    options.port = 0;
    server_ = std::make_unique<Server>(*service_, options);
    port_ = server_->bind();
    thread_ = std::thread([this] { server_->run(); });
  }
  ~RunningServer() {
    server_->stop();
    thread_.join();
  }

  httplib::Client client() const {
    httplib::Client client("127.0.0.1", port_);
    client.set_read_timeout(60);
    client.set_tcp_nodelay(true);
    return client;
  }
  /// Sends a JSON body and returns the response's, with the status in `status`.
  Json post(const std::string& path, const Json& body, int* status = nullptr,
            const httplib::Headers& headers = {}) const {
    const httplib::Result result = client().Post(path, headers, body.dump(), "application/json");
    EXPECT_TRUE(result) << path;
    if (!result) return {};
    if (status) *status = result->status;
    return Json::parse(result->body);
  }
  Service& service() { return *service_; }
  int port() const { return port_; }

 private:
  std::unique_ptr<Service> service_;
  std::unique_ptr<Server> server_;
  int port_ = 0;
  std::thread thread_;
};

/// Returns the data of the events of a stream.
inline std::vector<std::string> events_of(const std::string& stream) {
  std::vector<std::string> events;
  for (size_t at = 0; (at = stream.find("data: ", at)) != std::string::npos;) {
    const size_t end = stream.find("\n\n", at);
    events.push_back(stream.substr(at + 6, end - at - 6));
    at = end;
  }
  return events;
}

inline Json messages(const std::string& text) { return Json::array({Json{{"role", "user"}, {"content", text}}}); }

}  // namespace fathom::serve
