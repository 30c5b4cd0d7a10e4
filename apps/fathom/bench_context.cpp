// fathom bench --test: contexts that are opened instead of read, and edited in the middle.
#include "bench_context.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "base/stopwatch.h"
#include "bench_large_context.h"
#include "console.h"
#include "eval/statistics.h"
#include "loaded_model.h"

namespace fathom {
namespace {

constexpr int64_t kQuestionTokens = 16;
constexpr int64_t kDecodedTokens = 16;  // after a large context
constexpr int64_t kEditedTokens = 20;
constexpr double kEditPlace = 0.25;  // share of the context before the edit

/// A temporary folder, removed at the end.
class BenchFolder {
 public:
  BenchFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "fathom-bench-XXXXXX").string();
    if (!::mkdtemp(name.data())) fail(name, ": cannot create a temporary folder (set TMPDIR to another place)");
    path_ = name;
  }
  BenchFolder(const BenchFolder&) = delete;
  ~BenchFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  std::string file(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::vector<int32_t> random_tokens(int64_t n, int64_t vocabulary, uint32_t state) {
  std::vector<int32_t> tokens(n);
  for (int32_t& token : tokens) {
    state = state * 1664525u + 1013904223u;
    token = static_cast<int32_t>((uint64_t{state} * static_cast<uint64_t>(vocabulary)) >> 32);
  }
  return tokens;
}

/// Returns the median seconds of several runs.
double median_seconds(int64_t runs, const std::function<void()>& run) {
  std::vector<double> seconds;
  for (int64_t i = 0; i < runs; ++i) {
    const Stopwatch watch;
    run();
    seconds.push_back(watch.seconds());
  }
  return eval::median(seconds);
}

class ContextBench {
 public:
  ContextBench(const ContextBenchOptions& options, const SessionOptions& session,
               const std::shared_ptr<const Model>& model, const std::shared_ptr<Runtime>& runtime)
      : options_(options), session_(session), model_(model), runtime_(runtime) {}

  void run() {
    for (const int64_t depth : options_.depths) {
      for (const std::string& test : options_.tests)
        if (test == "large")
          bench_large_context({folder_.file("large.ctx"), depth, kDecodedTokens, options_.memory, options_.json},
                              session_, model_, runtime_);
      if (std::ranges::count(options_.tests, "large") == std::ssize(options_.tests)) continue;
      if (depth < 4 * kEditedTokens) fail_usage("--test: expected --depth of at least ", 4 * kEditedTokens);
      const int64_t vocabulary = model_->config().vocabulary;
      text_ = random_tokens(depth, vocabulary, 1);
      question_ = random_tokens(kQuestionTokens, vocabulary, 2);
      SessionOptions cached = session_;
      cached.disk_cache = std::make_shared<DiskCache>(folder_.file("cache"), int64_t{1} << 50);
      Session session(engine(), cached);
      const Stopwatch watch;
      read_tokens(session, text_);
      session.append(question_);
      cold_ = watch.seconds();
      session.rewind(kQuestionTokens);
      for (const std::string& test : options_.tests) {
        if (test == "open") open(session, cached);
        if (test == "edit") edit(session);
      }
    }
  }

 private:
  std::shared_ptr<Engine> engine() const { return std::make_shared<Engine>(model_, runtime_); }

  void open(const Session& session, const SessionOptions& cached) const {
    const std::string path = folder_.file("a.ctx");
    const double saving = median_seconds(options_.runs, [&] { session.save(path); });
    const auto bytes = static_cast<double>(std::filesystem::file_size(path));
    const auto tokens = static_cast<double>(text_.size());
    const double opening = median_seconds(options_.runs, [&] { open_session(path); });
    const double opened = median_seconds(options_.runs, [&] { open_session(path).append(question_); });
    std::vector<int32_t> all = text_;
    all.insert(all.end(), question_.begin(), question_.end());
    int64_t restored = 0;
    const double cache = median_seconds(options_.runs, [&] {
      Session again(engine(), cached);
      again.append(all);
      restored = again.restored();
    });
    if (options_.json) {
      write_out(Json{{"test", "open"},
                     {"depth", text_.size()},
                     {"cache", session_.cache},
                     {"attend", session_.attend},
                     {"cold_first_token_seconds", cold_},
                     {"disk_cache_first_token_seconds", cache},
                     {"disk_cache_tokens", restored},
                     {"file_first_token_seconds", opened},
                     {"open_seconds", opening},
                     {"save_seconds", saving},
                     {"bytes", bytes},
                     {"bytes_per_1k_tokens", 1000 * bytes / tokens}}
                    .dump() +
                "\n");
      return;
    }
    write_out(concat("open, ", text_.size(), " tokens, --cache ", session_.cache, ": first token read cold ",
                     format_seconds(cold_), "; from the disk cache ", format_seconds(cache), " (",
                     format_size(cold_ / cache), " times sooner); from a context file ", format_seconds(opened),
                     " (", format_size(cold_ / opened), " times), of which opening ", format_seconds(opening),
                     "; saving ", format_seconds(saving), ", ", format_bytes(1000 * bytes / tokens),
                     " per 1,000 tokens\n"));
  }

  Session open_session(const std::string& path) const {
    return Session::open(engine(), std::make_shared<const ContextFile>(path), session_);
  }

  void edit(const Session& session) const {
    const auto at = static_cast<int64_t>(kEditPlace * static_cast<double>(text_.size()));
    const TokenEdit edit{at, at + kEditedTokens, random_tokens(kEditedTokens, model_->config().vocabulary, 3)};
    EditReport report;
    const double seconds = median_seconds(options_.runs, [&] {
      Session copy = session.fork();
      report = copy.edit({&edit, 1});
    });
    Session copy = session.fork();
    const Stopwatch watch;
    const EditReport exact = copy.edit({&edit, 1}, {.exact = true});
    const double reread = watch.seconds();
    if (options_.json) {
      write_out(Json{{"test", "edit"},
                     {"depth", text_.size()},
                     {"cache", session_.cache},
                     {"attend", session_.attend},
                     {"edited_tokens", kEditedTokens},
                     {"read_tokens", report.read},
                     {"moved_tokens", report.moved},
                     {"seconds", seconds},
                     {"exact_read_tokens", exact.read},
                     {"exact_seconds", reread}}
                    .dump() +
                "\n");
      return;
    }
    write_out(concat("edit of ", kEditedTokens, " tokens at 25 % of ", text_.size(), ": ", format_seconds(seconds),
                     " (", report.read, " tokens read, ", report.moved, " moved); read again exactly ",
                     format_seconds(reread), " (", exact.read, " tokens): ", format_size(reread / seconds),
                     " times cheaper\n"));
  }

  const ContextBenchOptions& options_;
  SessionOptions session_;
  std::shared_ptr<const Model> model_;
  std::shared_ptr<Runtime> runtime_;
  BenchFolder folder_;
  std::vector<int32_t> text_, question_;
  double cold_ = 0;  // seconds to the first token after text and question, all read
};

}  // namespace

void add_context_bench_options(Command command, std::vector<std::string>& tests) {
  command
      .add_option(
          "--test", tests,
          "measure contexts of --depth tokens instead: open, the time to the first token when they are read, "
          "restored from a disk cache, or opened from a file; edit, a change at a quarter of them; large, decoding "
          "after a context in a file (random, not read), without and with the limit of --memory; repeatable")
      .type_name("TEST")
      .one_value();
}

void bench_contexts(const ContextBenchOptions& options, const SessionOptions& session,
                    const std::shared_ptr<const Model>& model, const std::shared_ptr<Runtime>& runtime) {
  for (const std::string& test : options.tests)
    if (test != "open" && test != "edit" && test != "large")
      fail_usage("--test: expected open, edit or large, found ", quote(test));
  ContextBench(options, session, model, runtime).run();
}

}  // namespace fathom
