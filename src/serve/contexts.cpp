#include "serve/contexts.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/format.h"
#include "serve/api_error.h"

namespace fathom::serve {
namespace {

constexpr size_t kMaxName = 64;
constexpr std::string_view kSuffix = ".ctx";

NamedContext describe_context(const ContextFile& file, const std::string& name) {
  struct stat info {};
  ::stat(file.path().c_str(), &info);
  return {name, file.info().tokens, std::ssize(file.text()), static_cast<int64_t>(file.size()),
          static_cast<int64_t>(info.st_mtime)};
}

[[noreturn]] void no_context(const std::string& name) {
  throw ApiError(404, concat("there is no context named ", quote(name)), "context_not_found");
}

}  // namespace

void ContextStore::check_name(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
           c == '_';
  };
  if (name.empty() || name.size() > kMaxName || name[0] == '.' || !std::ranges::all_of(name, allowed))
    throw ApiError(400,
                   concat("context name: expected 1 to ", kMaxName,
                          " letters, digits, dots, dashes and underscores, found ", quote(name)),
                   "invalid_name");
}

std::string ContextStore::folder_of(const std::string& client) const {
  return concat(folder_, "/", client.empty() ? "local" : client);
}

std::string ContextStore::file_of(const std::string& client, const std::string& name) const {
  check_name(name);
  return concat(folder_of(client), "/", name, kSuffix);
}

std::string ContextStore::path(const std::string& client, const std::string& name) const {
  const std::string file = file_of(client, name);
  std::error_code error;
  std::filesystem::create_directories(folder_of(client), error);
  if (error) throw ApiError(500, concat("the folder of contexts cannot be created: ", error.message()));
  return file;
}

std::vector<NamedContext> ContextStore::list(const std::string& client) const {
  std::vector<NamedContext> contexts;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder_of(client), error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.ends_with(kSuffix) || name.starts_with('.')) continue;
    try {
      const std::string own = name.substr(0, name.size() - kSuffix.size());
      contexts.push_back(describe_context(*file(client, own), own));
    } catch (const Error&) {  // being replaced, or of another version
    }
  }
  std::ranges::sort(contexts, {}, &NamedContext::name);
  return contexts;
}

std::optional<NamedContext> ContextStore::find(const std::string& client, const std::string& name) const {
  std::error_code error;
  if (!std::filesystem::exists(file_of(client, name), error)) return std::nullopt;
  try {
    return describe_context(*file(client, name), name);
  } catch (const ApiError&) {  // deleted in between
    return std::nullopt;
  }
}

std::shared_ptr<const ContextFile> ContextStore::file(const std::string& client, const std::string& name) const {
  const std::string path = file_of(client, name);
  const std::lock_guard lock(mutex_);
  if (const auto opened = files_.find(path); opened != files_.end()) return opened->second;
  std::error_code error;
  try {
    if (std::filesystem::exists(path, error))
      return files_.emplace(path, std::make_shared<const ContextFile>(path)).first->second;
  } catch (const Error&) {
    if (std::filesystem::exists(path, error)) throw;  // otherwise it was deleted in between
  }
  no_context(name);
}

bool ContextStore::remove(const std::string& client, const std::string& name) {
  std::error_code error;
  return std::filesystem::remove(file_of(client, name), error);
}

Session ContextStore::open(const std::shared_ptr<Engine>& engine, const SessionOptions& options,
                           const std::string& client, const std::string& name) {
  const std::string path = file_of(client, name);
  auto opened = sessions_.find(path);
  if (opened == sessions_.end()) {
    const std::shared_ptr<const ContextFile> context = file(client, name);
    SessionOptions own = Session::options_of(*context);
    own.adapters = options.adapters;
    own.context = options.context;
    opened = sessions_.emplace(path, Session::open(engine, context, std::move(own))).first;
  }
  return opened->second.fork();
}

void ContextStore::close(const std::string& client, const std::string& name) {
  sessions_.erase(file_of(client, name));
  const std::lock_guard lock(mutex_);
  files_.erase(file_of(client, name));
}

}  // namespace fathom::serve
