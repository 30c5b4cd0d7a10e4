#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "context/framed_text.h"
#include "session/session.h"

namespace fathom::serve {

/// A saved context of a client.
struct NamedContext {
  std::string name;
  int64_t tokens = 0, text_bytes = 0, file_bytes = 0;
  int64_t created = 0;  // seconds since 1970
};

/// Context files with names, in one folder for each client: NAME.ctx. Files of other folders cannot be reached.
/// Thread-safe, except open() and close(), which the engine's thread calls.
class ContextStore {
 public:
  /// folder: of all clients; created with the first context.
  explicit ContextStore(std::string folder) : folder_(std::move(folder)) {}

  /// Throws ApiError for a name that is not 1 to 64 letters, digits, dots, dashes and underscores, or begins with a
  /// dot.
  static void check_name(std::string_view name);

  std::vector<NamedContext> list(const std::string& client) const;
  /// Returns a context, or nothing. Throws Error if its file is damaged.
  std::optional<NamedContext> find(const std::string& client, const std::string& name) const;
  /// Returns the file of a context, which stays open until close(). Throws ApiError if there is no such context.
  std::shared_ptr<const ContextFile> file(const std::string& client, const std::string& name) const;
  /// Returns the text of a context with its frame. Throws as file().
  FramedText text(const std::string& client, const std::string& name) const {
    return FramedText::of(*file(client, name));
  }
  /// Returns the path of a context, which may not exist. Creates the folder of the client.
  std::string path(const std::string& client, const std::string& name) const;
  /// Deletes a context. Returns false if there is none. Call close() after it.
  bool remove(const std::string& client, const std::string& name);

  /// Returns a session of the context. options: those of the server; the methods of the file are used. Throws
  /// ApiError if there is no such context.
  Session open(const std::shared_ptr<Engine>& engine, const SessionOptions& options, const std::string& client,
               const std::string& name);
  /// Forgets the opened file of a context that was replaced or deleted.
  void close(const std::string& client, const std::string& name);

 private:
  std::string folder_of(const std::string& client) const;
  std::string file_of(const std::string& client, const std::string& name) const;

  std::string folder_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::shared_ptr<const ContextFile>> files_;  // opened, by path; guarded by mutex_
  std::map<std::string, Session> sessions_;  // opened, by path; of the engine's thread
};

}  // namespace fathom::serve
