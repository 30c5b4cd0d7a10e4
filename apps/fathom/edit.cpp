// fathom edit: changes the text of a context file without reading all of it again.
#include "base/atomic_file.h"
#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "base/stopwatch.h"
#include "commands.h"
#include "console.h"
#include "context/text_edits.h"
#include "saved_context.h"

namespace fathom {
namespace {

struct EditCommand {
  CommonOptions common;
  std::string context, find, replace, file, out;
  EditOptions edit;
  bool json = false, all = false, has_replace = false;
};

/// Returns the new text of the context.
std::string edited_text(const std::string& text, const EditCommand& options) {
  if (!options.file.empty()) return read_input(options.file);
  std::string result;
  size_t at = 0, found = 0;
  for (size_t next; (next = text.find(options.find, at)) != std::string::npos; at = next + options.find.size()) {
    if (++found == 2 && !options.all)
      fail("--find: ", quote(options.find), " occurs several times: give more of the text, or --all");
    result.append(text, at, next - at).append(options.replace);
  }
  if (found == 0) fail("--find: ", quote(options.find), " does not occur in the text");
  return result.append(text, at);
}

/// Edits the session of the context. Throws Error that names its file.
EditReport edit_with_progress(Session& session, std::span<const TokenEdit> edits, const EditCommand& options) {
  Progress progress("editing", "tokens", 0);
  EditOptions edit = options.edit;
  edit.progress = [&](int64_t done, int64_t) {
    progress.update(done);
    throw_if_interrupted();
  };
  try {
    return session.edit(edits, edit);
  } catch (const Error& error) {
    if (error.kind() == Error::Kind::kInterrupted) throw;
    throw Error(concat(options.context, ": ", error.what()), error.kind());
  }
}

void run_edit(EditCommand options) {
  if (options.file.empty() == options.find.empty())
    fail_usage("expected either --find TEXT with --replace TEXT, or --file FILE");
  if (!options.find.empty() && !options.has_replace) fail_usage("--find needs --replace TEXT, which may be empty");
  if (options.edit.exact && options.edit.blend > 0) fail_usage("--blend has no effect with --exact");
  const std::string out = options.out.empty() ? options.context : options.out;
  check_writable(out);
  const auto file = open_context_file(options.context, options.common, methods_as_read());
  FramedText text = FramedText::of(*file);
  if (text.cartridge) fail(options.context, ": the context was made of a cartridge and has no text to edit");
  text.text = edited_text(text.text, options);
  const LoadedModel loaded(options.common);
  Session session = open_session(loaded, options.common, file);
  const std::vector<TokenEdit> edits = edits_between(session.ids(), text.tokens(*loaded.tokenizer));
  const Stopwatch watch;
  const EditReport report = edit_with_progress(session, edits, options);
  const double seconds = watch.seconds();
  const bool all_read = session.sequence().has_recurrent_layers() && report.read > 0 && !options.edit.exact;
  if (all_read)
    note("the model has recurrent layers: all tokens after the last checkpoint before the edit were read again");
  save_context(session, text, loaded, options.common, out, file->info().notes);
  if (options.json) {
    write_out(Json{{"file", out},
                   {"tokens", session.length()},
                   {"edits", edits.size()},
                   {"kept_tokens", report.kept},
                   {"moved_tokens", report.moved},
                   {"read_tokens", report.read},
                   {"measured_tokens", report.measured},
                   {"seconds", seconds}}
                  .dump() +
              "\n");
  } else {
    write_out(concat(out, ": ", session.length(), " tokens: ", report.read, " read, ", report.moved, " moved, ",
                     report.kept, " unchanged, in ", format_seconds(seconds), "\n"));
  }
}

}  // namespace

void add_edit(Command program) {
  auto o = std::make_shared<EditCommand>();
  o->common.methods = methods_as_read();
  Command command = program.add_command("edit", "Change the text of a context file and read only what changed");
  command.add_option("context", o->context, "context file of `fathom read`").type_name("FILE").required();
  command.add_option("--find", o->find, "text to replace; it must occur once, or give --all").type_name("TEXT");
  command
      .add_option(
          "--replace",
          [o](const std::string& text) {
            o->replace = text;
            o->has_replace = true;
          },
          "text that replaces it; empty to delete")
      .type_name("TEXT");
  command.add_flag("--all", o->all, "replace every occurrence");
  command.add_option("--file", o->file, "the whole new text; differences from the saved one become edits")
      .type_name("FILE");
  command.add_option("-o,--out", o->out, "context file to write [the same file]").type_name("FILE");
  command.add_flag("--exact", o->edit.exact,
                   "read again everything after the first edit: the same result as reading the new text");
  add_share_option(command, "--blend", o->edit.blend, "share",
                   "share of the later text that is read again, where it depends most on the edit; more is closer "
                   "to --exact and slower [0]")
      .type_name("SHARE");
  add_common_options(command, o->common);
  command.add_flag("--json", o->json, "print one JSON object with the tokens read, moved and kept");
  command.footer(
      R"(Text after an edit is moved, not read again: keys get new positions, and what the model made of the later text does not
change. That is an approximation, unless the later text does not depend on the edit; --blend and --exact read it again.

Examples:
  fathom edit book.ctx --find "Tuesday" --replace "Wednesday"
  fathom edit notes.ctx --file notes.txt -o new.ctx --blend 0.15
)");
  command.callback([o] { run_edit(*o); });
}

}  // namespace fathom
