#include "saved_context.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/progress.h"

namespace fathom {
MethodSpecs methods_as_read() {
  MethodSpecs methods;
  for (const MethodOption& option : kMethodOptions) methods.*option.spec = kAsRead;
  return methods;
}

std::shared_ptr<const ContextFile> open_context_file(const std::string& path, CommonOptions& options,
                                                     const MethodSpecs& unset) {
  auto file = std::make_shared<const ContextFile>(path);
  const ContextInfo& info = file->info();
  if (options.model.empty()) {
    std::error_code error;
    if (!std::filesystem::exists(info.model_path, error))
      fail(path, ": its model ", quote(info.model_path), " does not exist: give the model file with -m");
    options.model = info.model_path;
  }
  const auto take = [](std::string& own, const std::string& unset_value, const std::string& saved) {
    if (own == unset_value) own = saved;
  };
  take(options.methods.attend, unset.attend, info.attend);
  take(options.methods.position, unset.position, info.position);
  take(options.methods.cache, unset.cache, info.cache);
  take(options.methods.evict, unset.evict, info.evict);
  if (options.context == 0) options.context = info.context;
  if (options.lora.empty())
    for (const ContextAdapter& adapter : info.adapters) options.lora.push_back({adapter.path, adapter.scale});
  return file;
}

Session open_session(const LoadedModel& loaded, const CommonOptions& options,
                     const std::shared_ptr<const ContextFile>& file) {
  SessionOptions session = options.session(loaded.adapters);
  session.layers = static_cast<int>(file->info().model_layers);
  return Session::open(loaded.engine, file, std::move(session));
}

void save_context(const Session& session, const FramedText& text, const LoadedModel& loaded,
                  const CommonOptions& options, const std::string& path, const Json& notes) {
  SavedText saved;
  saved.notes = notes;
  for (const AdapterFile& adapter : options.lora) {
    std::error_code error;
    const std::filesystem::path full = std::filesystem::absolute(adapter.path, error);
    if (adapter.scale != 0) saved.adapter_paths.push_back(error ? adapter.path : full.string());
  }
  Progress progress("saving", "bytes", static_cast<int64_t>(session.sequence().bytes()));
  saved.progress = [&](int64_t bytes) {
    progress.update(bytes);
    throw_if_interrupted();
  };
  text.save(session, *loaded.tokenizer, path, std::move(saved));
}

}  // namespace fathom
