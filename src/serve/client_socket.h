#pragma once

#include <string>

namespace fathom::serve {

/// The connection of a client while its request is answered: the HTTP library does not tell handlers whether the
/// client is still there.
class ClientSocket {
 public:
  /// address, port: of the client.
  ClientSocket(std::string address, int port) : address_(std::move(address)), port_(port) {}

  /// Returns false if the client has closed the connection. Call it during the request alone.
  bool alive();

 private:
  std::string address_;
  int port_;
  int descriptor_ = -2;  // of the socket; −2: not looked up yet; −1: not found
};

}  // namespace fathom::serve
