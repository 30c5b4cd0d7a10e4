#include "serve/contexts.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/format.h"
#include "serve/api_error.h"

namespace fathom::serve {
namespace {

constexpr size_t kMaxName = 64;
constexpr std::string_view kSuffix = ".ctx";

NamedContext describe_context(const std::string& path, const std::string& name) {
  const ContextFile file(path);
  struct stat info {};
  ::stat(path.c_str(), &info);
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
      contexts.push_back(describe_context(entry->path().string(), name.substr(0, name.size() - kSuffix.size())));
    } catch (const Error&) {  // being replaced, or of another version
    }
  }
  std::ranges::sort(contexts, {}, &NamedContext::name);
  return contexts;
}

std::optional<NamedContext> ContextStore::find(const std::string& client, const std::string& name) const {
  const std::string file = file_of(client, name);
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return std::nullopt;
  return describe_context(file, name);
}

FramedText ContextStore::text(const std::string& client, const std::string& name) const {
  const std::string file = file_of(client, name);
  std::error_code error;
  if (!std::filesystem::exists(file, error)) no_context(name);
  return FramedText::of(ContextFile(file));
}

std::vector<int64_t> ContextStore::offsets(const std::string& client, const std::string& name) const {
  const std::string path = file_of(client, name);
  std::error_code error;
  if (!std::filesystem::exists(path, error)) no_context(name);
  const ContextFile file(path);
  return {file.offsets().begin(), file.offsets().end()};
}

bool ContextStore::remove(const std::string& client, const std::string& name) {
  std::error_code error;
  return std::filesystem::remove(file_of(client, name), error);
}

Session ContextStore::open(const std::shared_ptr<Engine>& engine, const SessionOptions& options,
                           const std::string& client, const std::string& name) {
  const std::string file = file_of(client, name);
  auto opened = sessions_.find(file);
  if (opened == sessions_.end()) {
    std::error_code error;
    if (!std::filesystem::exists(file, error)) no_context(name);
    const auto context = std::make_shared<const ContextFile>(file);
    SessionOptions own = Session::options_of(*context);
    own.adapters = options.adapters;
    own.context = options.context;
    opened = sessions_.emplace(file, Session::open(engine, context, std::move(own))).first;
  }
  return opened->second.fork();
}

void ContextStore::close(const std::string& client, const std::string& name) {
  sessions_.erase(file_of(client, name));
}

void save_named_context(const Session& session, const FramedText& text, const Tokenizer& tokenizer,
                        const std::string& path) {
  const std::vector<int64_t> offsets = text.offsets(tokenizer, session.ids());
  SavedText saved;
  saved.text = text.text;
  saved.offsets = offsets;
  saved.notes = text.to_json();
  session.save(path, saved);
}

}  // namespace fathom::serve
