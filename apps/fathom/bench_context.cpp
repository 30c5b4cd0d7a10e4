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
#include "bench_quality.h"
#include "console.h"
#include "eval/statistics.h"
#include "loaded_model.h"
#include "options.h"

namespace fathom {
namespace {

constexpr int64_t kQuestionTokens = 16;
constexpr int64_t kDecodedTokens = 16;  // after a large context
constexpr int64_t kEditedTokens = 20;
constexpr int64_t kTimedTokens = 4096, kQualityTokens = 2048;  // --depth
constexpr double kEditPlace = 0.25;                            // share of the context before the edit

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

/// Throws Error (usage) unless the quality of edits and joins can be measured.
void check_quality_test(const ContextBenchOptions& options, const Model& model) {
  if (options.documents.empty())
    fail_usage("--test edit-quality and join-quality need --documents PATH, the texts to measure with");
  if (!model.file()) fail_usage("--test edit-quality and join-quality need a model file (-m), not --shape");
  bool recurrent = false;
  for (int layer = 0; layer < model.config().layers; ++layer)
    recurrent = recurrent || model.network().attention()[layer].heads == 0;
  if (recurrent || model.config().landmarks)
    fail_usage(
        "--test edit-quality and join-quality: a model with recurrent layers or landmarks reads all later "
        "text again");
}

}  // namespace

void add_context_bench_options(Command command, ContextBenchOptions& options) {
  command
      .add_option(
          "--test", options.tests,
          "measure contexts of --depth tokens instead: open, the time to the first token when they are read, "
          "restored from a disk cache, or opened from a file; edit, a change at a quarter of them; large, decoding "
          "after a context in a file (random, not read), without and with the limit of --memory; edit-quality and "
          "join-quality, the predictions after edited and joined --documents; repeatable")
      .type_name("TEST")
      .one_value();
  command
      .add_option("--documents", options.documents,
                  "with --test edit-quality and join-quality: a text file, or a folder of texts and source files; "
                  "repeatable")
      .type_name("PATH")
      .one_value();
  add_size_option(command, "--samples", options.samples, 1,
                  "with --documents: maximum number of documents; more is slower and more precise [50]", 1'000'000);
}

void bench_contexts(const ContextBenchOptions& options, const SessionOptions& session,
                    const std::shared_ptr<const Model>& model, const std::shared_ptr<Runtime>& runtime) {
  ContextBenchOptions timed = options;
  timed.tests.clear();
  if (timed.depths.empty()) timed.depths = {kTimedTokens};
  bool quality = false;
  for (const std::string& test : options.tests) {
    const bool known =
        test == "open" || test == "edit" || test == "large" || test == "edit-quality" || test == "join-quality";
    if (!known) fail_usage("--test: expected open, edit, large, edit-quality or join-quality, found ", quote(test));
    test.ends_with("-quality") ? void(quality = true) : timed.tests.push_back(test);
  }
  if (quality) check_quality_test(options, *model);
  if (!timed.tests.empty()) ContextBench(timed, session, model, runtime).run();
  const std::vector<int64_t> depths = options.depths.empty() ? std::vector{kQualityTokens} : options.depths;
  for (const std::string& test : options.tests) {
    for (const int64_t depth : depths) {
      const QualityBenchOptions own{options.documents, options.samples, depth, options.json};
      if (test == "edit-quality") bench_edit_quality(own, session, model, runtime);
      if (test == "join-quality") bench_join_quality(own, session, model, runtime);
    }
  }
}

}  // namespace fathom
