// fathom cache: shows, checks and empties the disk cache.
#include <ctime>
#include <map>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "commands.h"
#include "console.h"
#include "options.h"
#include "session/disk_cache.h"

namespace fathom {
namespace {

struct CacheCommand {
  std::string folder;
  int64_t quota = 0;
  bool json = false;
};

std::string folder_of(const CacheCommand& options) {
  return options.folder.empty() ? DiskCache::default_folder() : options.folder;
}

int64_t bytes_of(const std::vector<DiskCache::Block>& blocks) {
  int64_t bytes = 0;
  for (const DiskCache::Block& block : blocks) bytes += block.bytes;
  return bytes;
}

std::string date_of(int64_t seconds) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm local{};
  ::localtime_r(&time, &local);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local);
  return text;
}

/// Prints the blocks and bytes of each model.
void stats(const CacheCommand& options) {
  const std::vector<DiskCache::Block> blocks = DiskCache::list(folder_of(options));
  struct OfModel {
    int64_t blocks = 0, bytes = 0, used = 0;
    std::string name;
  };
  std::map<std::string, OfModel> models;  // by folder
  for (const DiskCache::Block& block : blocks) {
    OfModel& model = models[block.path.substr(0, block.path.rfind('/'))];
    ++model.blocks;
    model.bytes += block.bytes;
    model.used = std::max(model.used, block.used);
    if (!model.name.empty()) continue;
    try {
      const ContextInfo info = ContextFile(block.path).info();
      model.name = info.model_name.empty() ? info.architecture : info.model_name;
    } catch (const Error&) {
      model.name.clear();  // damaged: another block of the model may tell its name
    }
  }
  if (options.json) {
    Json list = Json::array();
    for (const auto& [folder, model] : models)
      list.push_back(
          {{"model", model.name}, {"blocks", model.blocks}, {"bytes", model.bytes}, {"last_used", model.used}});
    write_out(Json{{"folder", folder_of(options)},
                   {"blocks", blocks.size()},
                   {"bytes", bytes_of(blocks)},
                   {"models", list}}
                  .dump() +
              "\n");
    return;
  }
  std::string out = concat(folder_of(options), ": ", blocks.size(), " blocks, ",
                           format_bytes(static_cast<double>(bytes_of(blocks))), "\n");
  for (const auto& [folder, model] : models)
    out += concat("  ", model.name, ": ", model.blocks, " blocks, ", format_bytes(static_cast<double>(model.bytes)),
                  ", last used ", date_of(model.used), "\n");
  write_out(out);
}

void list(const CacheCommand& options) {
  const std::vector<DiskCache::Block> blocks = DiskCache::list(folder_of(options));
  if (options.json) {
    Json lines = Json::array();
    for (const DiskCache::Block& block : blocks)
      lines.push_back({{"path", block.path}, {"bytes", block.bytes}, {"last_used", block.used}});
    write_out(lines.dump() + "\n");
    return;
  }
  std::string out;
  for (const DiskCache::Block& block : blocks)
    out +=
        concat(date_of(block.used), "  ", format_bytes(static_cast<double>(block.bytes)), "  ", block.path, "\n");
  write_out(out);
}

/// Checks all blocks and fails if one is damaged.
void verify(const CacheCommand& options) {
  const std::vector<DiskCache::Block> blocks = DiskCache::list(folder_of(options));
  std::vector<std::string> damaged;
  {
    Progress progress("checking", "bytes", bytes_of(blocks));
    int64_t done = 0;
    for (const DiskCache::Block& block : blocks) {
      throw_if_interrupted();
      try {
        ContextFile(block.path).verify();
      } catch (const Error& error) {
        damaged.emplace_back(error.what());
      }
      progress.update(done += block.bytes);
    }
  }
  if (options.json)
    write_out(Json{{"blocks", blocks.size()}, {"bytes", bytes_of(blocks)}, {"damaged", damaged}}.dump() + "\n");
  for (const std::string& error : damaged) note(error);
  if (!damaged.empty())
    fail(damaged.size(), " of ", blocks.size(), " blocks are damaged; they are deleted when they are next needed");
  if (!options.json)
    write_out(
        concat(blocks.size(), " blocks are intact, ", format_bytes(static_cast<double>(bytes_of(blocks))), "\n"));
}

void prune(const CacheCommand& options, int64_t quota) {
  const std::vector<DiskCache::Block> deleted = DiskCache::prune(folder_of(options), quota);
  const int64_t left = bytes_of(DiskCache::list(folder_of(options)));
  if (options.json) {
    write_out(
        Json{{"deleted_blocks", deleted.size()}, {"deleted_bytes", bytes_of(deleted)}, {"bytes", left}}.dump() +
        "\n");
  } else {
    write_out(concat("deleted ", deleted.size(), " blocks, ", format_bytes(static_cast<double>(bytes_of(deleted))),
                     "; ", format_bytes(static_cast<double>(left)), " are left\n"));
  }
}

}  // namespace

void add_cache(Command program) {
  auto o = std::make_shared<CacheCommand>();
  Command command = program.add_command("cache", "Show, check or empty the disk cache of --cache-disk");
  command.require_command();
  const auto add = [&](const char* name, const char* help) {
    Command part = command.add_command(name, help);
    part.add_option("--folder", o->folder, "folder of the cache [$XDG_CACHE_HOME/fathom, or ~/.cache/fathom]")
        .type_name("FOLDER");
    part.add_flag("--json", o->json, "print JSON");
    return part;
  };
  add("stats", "Print the number of blocks and bytes of each model").callback([o] { stats(*o); });
  add("list", "List all blocks, the least recently used first").callback([o] { list(*o); });
  add("verify", "Read all blocks and compare their checksums").callback([o] { verify(*o); });
  Command part = add("prune", "Delete the least recently used blocks");
  add_size_option(part, "--size", o->quota, 0, "bytes to keep, such as 1g [0: none]");
  part.callback([o] { prune(*o, o->quota); });
  add("clear", "Delete all blocks").callback([o] { prune(*o, 0); });
  command.footer(
      R"(The cache holds what was computed from texts that were read with --cache-disk, in blocks of --chunk tokens. A request
that begins with the same tokens reads only the rest.

Examples:
  fathom run -f book.txt -p "The next morning," --cache-disk 10g
  fathom cache stats
  fathom cache prune --size 1g
)");
}

}  // namespace fathom
