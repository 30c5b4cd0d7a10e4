#include "serve/conversations.h"

namespace fathom::serve {
namespace {

constexpr int64_t kMostBytes = int64_t{256} << 20;
constexpr size_t kMostResponses = 1024;

}  // namespace

int64_t ConversationStore::bytes_of(const StoredResponse& response) {
  int64_t bytes = 4096;  // of the fields of the body
  for (const ChatMessage& message : response.messages)
    bytes += 2 * std::ssize(message.content) + 512;  // in the messages and, if it is the answer, in the body
  return bytes;
}

void ConversationStore::drop(const Key& key) {
  const auto found = responses_.find(key);
  bytes_ -= bytes_of(found->second);
  responses_.erase(found);
  oldest_.remove(key);
}

void ConversationStore::put(const std::string& client, const std::string& id, StoredResponse response) {
  const std::lock_guard lock(mutex_);
  bytes_ += bytes_of(response);
  responses_.emplace(Key(client, id), std::move(response));
  oldest_.emplace_back(client, id);
  while (oldest_.size() > 1 && (oldest_.size() > kMostResponses || bytes_ > kMostBytes)) drop(Key(oldest_.front()));
}

std::optional<StoredResponse> ConversationStore::find(const std::string& client, const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto found = responses_.find(Key(client, id));
  return found == responses_.end() ? std::nullopt : std::optional(found->second);
}

bool ConversationStore::remove(const std::string& client, const std::string& id) {
  const std::lock_guard lock(mutex_);
  const Key key(client, id);
  if (!responses_.contains(key)) return false;
  drop(key);
  return true;
}

}  // namespace fathom::serve
