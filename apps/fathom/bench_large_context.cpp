// fathom bench --test large: contexts in files that are larger than the memory for them.
#include "bench_large_context.h"

#include <fcntl.h>
#include <unistd.h>

#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "base/stopwatch.h"
#include "console.h"
#include "eval/machine.h"

namespace fathom {
namespace {

/// Removes a file from the system's memory, so that it is read from the disk again.
void forget_file(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(path, ": cannot open the file");
  ::fdatasync(file);
  ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  ::close(file);
}

struct LargeFigure {
  double tokens_per_second = 0, first_seconds = 0;
  size_t peak = 0;  // bytes of memory beyond those before opening
  FilePageReads pages;
};

LargeFigure measure_large(const LargeContextBench& bench, size_t memory, const SessionOptions& options,
                          const std::shared_ptr<const Model>& model, const std::shared_ptr<Runtime>& runtime) {
  forget_file(bench.path);
  eval::reset_peak_resident_bytes();
  const size_t before = eval::peak_resident_bytes();
  LargeFigure figure;
  const Stopwatch opening;
  const auto engine = std::make_shared<Engine>(model, runtime, EngineOptions{.memory = memory});
  Session session = Session::open(engine, std::make_shared<const ContextFile>(bench.path), options);
  const auto step = [&](int64_t i) {
    const int32_t token = static_cast<int32_t>((7 + 31 * i) % model->config().vocabulary);
    session.append({&token, 1});
  };
  step(0);  // checks the pages
  figure.first_seconds = opening.seconds();
  const FilePageReads read = session.file_page_reads();
  const Stopwatch watch;
  for (int64_t i = 1; i <= bench.tokens; ++i) step(i);
  figure.tokens_per_second = static_cast<double>(bench.tokens) / watch.seconds();
  figure.pages = session.file_page_reads() - read;
  figure.peak = eval::peak_resident_bytes() - before;
  return figure;
}

Json to_json(const LargeFigure& figure) {
  return {{"first_token_seconds", figure.first_seconds},
          {"tokens_per_second", figure.tokens_per_second},
          {"peak_bytes", figure.peak},
          {"file_pages",
           {{"read", figure.pages.read}, {"missed", figure.pages.missed}, {"loaded", figure.pages.loaded}}}};
}

std::string to_text(const LargeFigure& figure) {
  const auto read = static_cast<double>(std::max<int64_t>(1, figure.pages.read));
  const auto percent = [&](int64_t pages) {
    return concat(format_size(100 * static_cast<double>(pages) / read), " %");
  };
  return concat(format_size(figure.tokens_per_second), " tokens/s (the first after ",
                format_seconds(figure.first_seconds), "), at most ", format_bytes(static_cast<double>(figure.peak)),
                " of memory, ", figure.pages.read, " pages needed, of which ", percent(figure.pages.missed),
                " were read when they were needed; ", percent(figure.pages.loaded), " were read before");
}

}  // namespace

void bench_large_context(const LargeContextBench& bench, const SessionOptions& session,
                         const std::shared_ptr<const Model>& model, const std::shared_ptr<Runtime>& runtime) {
  {
    Session made(std::make_shared<Engine>(model, runtime), session);
    made.fill_random(bench.depth);
    const std::vector<int32_t> last{5, 6, 7};  // makes the states of the method
    made.append(last);
    made.save(bench.path);
  }
  const auto file = ContextFile(bench.path).size();
  const LargeFigure free = measure_large(bench, 0, session, model, runtime);
  LargeFigure limited;
  if (bench.memory > 0) limited = measure_large(bench, bench.memory, session, model, runtime);
  if (bench.json) {
    Json line{{"test", "large"},           {"depth", bench.depth},     {"bytes", file},
              {"cache", session.cache},    {"attend", session.attend}, {"memory", bench.memory},
              {"unlimited", to_json(free)}};
    if (bench.memory > 0) line["limited"] = to_json(limited);
    write_out(line.dump() + "\n");
    return;
  }
  write_out(concat("large, ", bench.depth, " tokens, ", format_bytes(static_cast<double>(file)), ", --attend ",
                   session.attend, ": ", to_text(free), "\n"));
  if (bench.memory > 0)
    write_out(concat("  with --memory ", format_bytes(static_cast<double>(bench.memory)), ": ", to_text(limited),
                     "; ", format_size(limited.tokens_per_second / free.tokens_per_second), " times as fast\n"));
}

}  // namespace fathom
