#pragma once

#include <memory>
#include <string>
#include <vector>

#include "serve/service.h"

namespace fathom::serve {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8080;                  // 0: any free port
  std::vector<std::string> keys{};  // requests need one of them; empty: none
  std::string origin{};             // web pages of this origin may send requests; empty: those of the server alone
  size_t max_body = size_t{64} << 20;  // bytes of a request
  /// PEM files of a certificate and its private key, for HTTPS; empty: HTTP.
  std::string certificate{}, private_key{};
};

/// An HTTP server for a service. Its endpoints are documented in docs/server.md. Each key has its own contexts and
/// limits.
class Server {
 public:
  /// Throws Error if the certificate or its key cannot be used.
  Server(Service& service, ServerOptions options);
  ~Server();

  /// Binds to the address. Returns the port. Throws Error if that fails.
  int bind();
  /// Serves until stop() is called.
  void run();
  void stop();

 private:
  struct Http;
  std::unique_ptr<Http> http_;
};

}  // namespace fathom::serve
