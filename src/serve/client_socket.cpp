#include "serve/client_socket.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <charconv>
#include <memory>
#include <string_view>

namespace fathom::serve {
namespace {

/// Returns whether the other end of a socket has this address.
bool is_peer(int descriptor, const std::string& address, int port) {
  sockaddr_storage peer{};
  socklen_t size = sizeof(peer);
  if (getpeername(descriptor, reinterpret_cast<sockaddr*>(&peer), &size) != 0) return false;
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (peer.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(peer);
    return ntohs(v4.sin_port) == port && inet_ntop(AF_INET, &v4.sin_addr, text.data(), text.size()) &&
           address == text.data();
  }
  if (peer.ss_family != AF_INET6) return false;
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(peer);
  return ntohs(v6.sin6_port) == port && inet_ntop(AF_INET6, &v6.sin6_addr, text.data(), text.size()) &&
         address == text.data();
}

/// Returns the open socket whose other end has this address; −1: none.
int find_socket(const std::string& address, int port) {
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir("/proc/self/fd"), closedir);
  while (const dirent* entry = folder ? readdir(folder.get()) : nullptr) {
    const std::string_view name = entry->d_name;
    int descriptor = -1;
    if (std::from_chars(name.data(), name.data() + name.size(), descriptor).ec != std::errc()) continue;
    if (is_peer(descriptor, address, port)) return descriptor;
  }
  return -1;
}

}  // namespace

bool ClientSocket::alive() {
  if (descriptor_ == -2) descriptor_ = find_socket(address_, port_);
  if (descriptor_ < 0) return true;
  pollfd state{descriptor_, POLLRDHUP, 0};
  return poll(&state, 1, 0) <= 0 || (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0;
}

}  // namespace fathom::serve
