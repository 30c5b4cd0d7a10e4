#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "tokens/chat_template.h"

namespace fathom::serve {

/// A response that later requests can continue by its identifier.
struct StoredResponse {
  std::vector<ChatMessage> messages;  // of the conversation, with the answer
  Json body{};                        // of the response
};

/// The newest responses of a server, in memory. Thread-safe.
class ConversationStore {
 public:
  void put(const std::string& client, const std::string& id, StoredResponse response);
  /// Returns a response of a client, or nothing.
  std::optional<StoredResponse> find(const std::string& client, const std::string& id) const;
  /// Returns false if the client has no such response.
  bool remove(const std::string& client, const std::string& id);

 private:
  using Key = std::pair<std::string, std::string>;  // client, identifier
  static int64_t bytes_of(const StoredResponse& response);
  void drop(const Key& key);

  mutable std::mutex mutex_;
  std::map<Key, StoredResponse> responses_;
  std::list<Key> oldest_;
  int64_t bytes_ = 0;
};

}  // namespace fathom::serve
