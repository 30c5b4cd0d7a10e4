// fathom context: shows, checks and compacts context files.
#include <algorithm>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "commands.h"
#include "console.h"
#include "saved_context.h"

namespace fathom {
namespace {

struct ContextOptions {
  CommonOptions common;
  std::string file, out;
  bool json = false;
};

int64_t page_count(const ContextInfo& info) {
  int64_t count = 0;
  for (const ContextPages& pages : info.pages) count += pages.count;
  return count;
}

/// Returns the names of the files that were read, from the notes of the program.
std::vector<std::string> file_names(const ContextFile& file) {
  std::vector<std::string> names;
  try {
    if (const Json* files = file.info().notes.find("files"))
      for (const Json& name : files->items()) names.push_back(name.text());
  } catch (const JsonError& error) {
    fail(file.path(), ": the context file is damaged: its notes: ", error.what());
  }
  return names;
}

void show(const ContextOptions& options) {
  const ContextFile file(options.file);
  const ContextInfo& info = file.info();
  const auto tokens = static_cast<double>(std::max<int64_t>(1, info.tokens));
  if (options.json) {
    Json json = info.to_json();
    json["bytes"] = static_cast<int64_t>(file.size());
    json["text_bytes"] = file.text().size();
    json["selector_state_bytes"] = file.selector_state().size();
    json["evictor_state_bytes"] = file.evictor_state().size();
    write_out(json.dump() + "\n");
    return;
  }
  std::string out;
  const auto line = [&](const char* label, const std::string& value) {
    out += concat(label, std::string(13 - std::string_view(label).size(), ' '), escape(value), "\n");
  };
  line("model", concat(info.model_name.empty() ? "without a name" : info.model_name, " (", info.architecture, "), ",
                       info.model_path));
  line("tokens",
       concat(info.tokens, file.text().empty() ? "" : concat(" of ", file.text().size(), " bytes of text")));
  if (const std::vector<std::string> names = file_names(file); !names.empty()) line("read from", comma_list(names));
  line("size", concat(format_bytes(static_cast<double>(file.size())), ", ",
                      format_bytes(1000 * static_cast<double>(file.size()) / tokens), " per 1,000 tokens"));
  line("pages", concat(page_count(info), " of 64 tokens of one head, --cache ", info.cache));
  line("methods", concat("--attend ", info.attend, " --position ", info.position, " --evict ", info.evict));
  for (const ContextAdapter& adapter : info.adapters)
    line("adapter", concat(adapter.path, ":scale=", adapter.scale));
  int64_t states = 0;
  for (size_t layer = 0; layer < info.layers.size(); ++layer)
    if (info.layers[layer].state_floats > 0)
      states = std::max(states, std::ssize(file.states(static_cast<int>(layer)).tokens));
  if (states > 0) line("checkpoints", concat(states, " of recurrent layers"));
  write_out(out);
}

void verify(const ContextOptions& options) {
  const ContextFile file(options.file);
  {
    Progress progress("checking", "bytes", static_cast<int64_t>(file.size()));
    file.verify([&](int64_t bytes) {
      progress.update(bytes);
      throw_if_interrupted();
    });
  }
  if (options.json) {
    write_out(Json{{"file", options.file},
                   {"intact", true},
                   {"pages", page_count(file.info())},
                   {"bytes", static_cast<int64_t>(file.size())}}
                  .dump() +
              "\n");
  } else {
    write_out(concat(options.file, ": intact: ", page_count(file.info()), " pages, ",
                     format_bytes(static_cast<double>(file.size())), "\n"));
  }
}

void compact(ContextOptions options) {
  const std::string out = options.out.empty() ? options.file : options.out;
  const auto file = open_context_file(options.file, options.common, methods_as_read());
  check_writable(out);
  const LoadedModel loaded(options.common);
  Session session = open_session(loaded, options.common, file);
  const int64_t before = page_count(file->info());
  session.compact();
  save_context(session, FramedText::of(*file), loaded, options.common, out, file->info().notes);
  const int64_t after = page_count(ContextFile(out).info());
  if (options.json) {
    write_out(Json{{"file", out}, {"pages_before", before}, {"pages", after}}.dump() + "\n");
  } else {
    write_out(concat(out, ": ", after, " pages, before: ", before, "\n"));
  }
}

}  // namespace

void add_context(Command program) {
  auto o = std::make_shared<ContextOptions>();
  o->common.methods = methods_as_read();
  Command command = program.add_command("context", "Show, check or compact context files of `fathom read`");
  command.require_command();
  const auto add = [&](const char* name, const char* help) {
    Command part = command.add_command(name, help);
    part.add_option("file", o->file, "context file").type_name("FILE").required();
    part.add_flag("--json", o->json, "print one JSON object");
    return part;
  };
  add("show", "Describe a context file: its model, tokens, size and methods").callback([o] { show(*o); });
  add("verify", "Read the whole file and compare all checksums").callback([o] { verify(*o); });
  Command part = add("compact", "Merge pages that edits left partly filled");
  part.add_option("-o,--out", o->out, "context file to write [the same file]").type_name("FILE");
  add_common_options(part, o->common);
  part.callback([o] { compact(*o); });
  command.footer(R"(Examples:
  fathom context show book.ctx
  fathom context verify book.ctx
  fathom context compact book.ctx -o small.ctx
)");
}

}  // namespace fathom
