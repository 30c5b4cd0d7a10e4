#include "eval/read_context.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"

namespace fathom::eval {

ReadContext::ReadContext(std::shared_ptr<const ContextFile> file, int64_t chunk)
    : file_(std::move(file)), chunk_(chunk) {
  if (file_->info().evict != "none")
    fail_usage(file_->path(), ": read with --evict ", file_->info().evict,
               ", which removes tokens: expected a context that was read without");
}

int64_t ReadContext::least() const { return file_->info().attend == "dense" ? kPageTokens : chunk_; }

int64_t ReadContext::taken(std::span<const int32_t> prompt, int64_t limit) const {
  const int64_t common = std::ranges::mismatch(prompt, file_->tokens()).in1 - prompt.begin();
  const int64_t usable = std::min(common, limit);
  const int64_t unit = usable >= chunk_ ? chunk_ : least();
  return usable / unit * unit;
}

void ReadContext::check(const MethodSpecs& method) const {
  const ContextInfo& info = file_->info();
  const auto expect = [&](const std::string& read, const std::string& found, const char* option,
                          const char* advice = "") {
    if (read != found)
      fail_usage(file_->path(), ": read with --", option, " ", read, ", found --", option, " ", found, advice);
  };
  expect("whole", method.read, "read");
  expect(info.cache, method.cache, "cache");
  expect(info.evict, method.evict, "evict");
  expect(info.attend, method.attend, "attend",
         info.attend == "dense" ? "; with --dense-prefill, question and answer may run under another method" : "");
}

Session ReadContext::open(std::shared_ptr<const Model> model, std::shared_ptr<Runtime> runtime,
                          SessionOptions options) const {
  options.context = file_->info().context;
  options.layers = static_cast<int>(file_->info().model_layers);
  return Session::open(std::make_shared<Engine>(std::move(model), std::move(runtime)), file_, std::move(options));
}

}  // namespace fathom::eval
